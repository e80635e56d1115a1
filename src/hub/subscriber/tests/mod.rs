//! Tests of subscribers, most of them over a log in memory.

mod deletions;
mod logs;

use std::time::Duration;

use super::*;
use crate::{
    event::Draft,
    event_log::{EventLog as _, MemoryLog, ReadLimit, Retention},
    hub::{Earlier, Hub, Latest, Readers},
    id::{Cursor, Epoch},
    timestamp::Timestamp,
};
use logs::{DamagedLog, FullLog, ShrinkingLog};

fn at_most(count: usize) -> ReadLimit {
    ReadLimit { count, bytes: usize::MAX }
}

fn log(count: usize) -> MemoryLog {
    MemoryLog::new(Epoch::new(1), Retention { count, clock_count: count, ..Retention::default() })
}

fn hub(count: usize) -> Hub {
    Hub::new(log(count), || Timestamp::from_millis(0))
}

async fn publish(hub: &Hub, count: u64) {
    for _ in 0..count {
        publish_to(hub, "clock").await;
    }
}

async fn publish_to(hub: &Hub, topic: &str) {
    hub.publish(Draft::new(topic.parse().unwrap(), "")).await.unwrap();
}

fn subscribe(hub: &Hub, cursor: Cursor) -> Subscriber {
    hub.subscribe(Topic::clock().into(), cursor)
}

fn patterns(text: &str) -> Patterns {
    Patterns::new(text.split(' ').map(|text| text.parse().unwrap())).unwrap()
}

fn id(sequence: u64) -> EventId {
    EventId { epoch: Epoch::new(1), sequence }
}

/// Returns the sequence numbers of all events that are available without waiting.
async fn take(subscriber: &mut Subscriber) -> Vec<u64> {
    let mut sequences = Vec::new();
    while let Ok(step) = tokio::time::timeout(Duration::from_millis(1), subscriber.next()).await {
        match step.unwrap() {
            Delivery::Events(frames) => {
                sequences.extend(frames.iter().map(|frame| frame.event().id.sequence));
            }
            other => panic!("{other:?}"),
        }
    }
    sequences
}

async fn gap(subscriber: &mut Subscriber) -> (GapReason, String) {
    match subscriber.try_next().await.unwrap() {
        Some(Delivery::Gap(gap)) => (gap.reason, gap.cursor),
        other => panic!("no gap: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn replay_and_live_have_no_seam() {
    let hub = hub(10_000);
    publish(&hub, 3000).await;
    // From the log, through the ring, to live events.
    let mut subscriber = subscribe(&hub, Cursor::After(id(1)));
    let mut sequences = take(&mut subscriber).await;
    publish(&hub, 5).await;
    sequences.extend(take(&mut subscriber).await);
    assert_eq!(sequences, (2..=3005).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn batches_from_the_ring_and_from_the_log_are_bounded_in_bytes() {
    let hub = hub(1000);
    let mut live = subscribe(&hub, Cursor::Now);
    for _ in 0..100 {
        let data = "x".repeat(10_000);
        hub.publish(Draft::new(Topic::clock(), data)).await.unwrap();
    }
    let mut behind = subscribe(&hub, Cursor::Earliest);
    for subscriber in [&mut live, &mut behind] {
        let Delivery::Events(frames) = subscriber.next().await.unwrap() else { panic!("a gap") };
        assert_eq!(frames.len(), 6);
        assert_eq!(take(subscriber).await, (7..=100).collect::<Vec<_>>());
    }
}

#[tokio::test(start_paused = true)]
async fn each_cursor_starts_at_its_position() {
    let hub = hub(10);
    publish(&hub, 3).await;
    for (cursor, expected) in [
        (Cursor::Now, vec![]),
        (Cursor::Earliest, vec![1, 2, 3]),
        (Cursor::After(id(0)), vec![1, 2, 3]),
        (Cursor::After(id(2)), vec![3]),
        (Cursor::After(id(3)), vec![]),
    ] {
        assert_eq!(take(&mut subscribe(&hub, cursor.clone())).await, expected, "{cursor:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_invalid_cursor_is_a_gap_and_then_continues() {
    let hub = hub(2);
    // The first ones are no longer in the ring.
    publish(&hub, 10_000).await;
    let other: EventId = "0000000000000002-4".parse().unwrap();
    for (cursor, reason, expected) in [
        (Cursor::After(id(2)), GapReason::Expired, vec![9999, 10_000]),
        (Cursor::After(other), GapReason::OtherEpoch, vec![9999, 10_000]),
        (Cursor::After(id(10_001)), GapReason::Future, vec![]),
        (Cursor::Malformed("x".to_owned()), GapReason::Malformed, vec![]),
    ] {
        let mut subscriber = subscribe(&hub, cursor.clone());
        assert!(!subscriber.is_settled());
        assert_eq!(gap(&mut subscriber).await.0, reason, "{cursor:?}");
        assert_eq!(take(&mut subscriber).await, expected, "{cursor:?}");
    }
    // No event after these is missing: those that the log has dropped are in the ring.
    for after in [9998, 5000] {
        let mut subscriber = subscribe(&hub, Cursor::After(id(after)));
        assert!(subscriber.is_settled());
        assert_eq!(take(&mut subscriber).await, (after + 1..=10_000).collect::<Vec<_>>());
    }
}

#[tokio::test(start_paused = true)]
async fn a_cursor_of_another_epoch_gets_one_gap() {
    let hub = hub(2);
    for topic in ["b", "a", "a"] {
        publish_to(&hub, topic).await;
    }
    hub.delete("a".parse().unwrap()).await.unwrap();
    let other = EventId { epoch: Epoch::new(2), sequence: 2 };
    let mut subscriber = hub.subscribe(patterns(">"), Cursor::After(other));
    assert_eq!(gap(&mut subscriber).await.0, GapReason::OtherEpoch);
    assert_eq!(take(&mut subscriber).await, [1]);
}

#[tokio::test(start_paused = true)]
async fn events_that_the_ring_has_lost_before_they_are_read_are_a_gap() {
    let hub = hub(2);
    publish(&hub, 5).await;
    let mut subscriber = subscribe(&hub, Cursor::After(id(2)));
    assert!(subscriber.is_settled(), "the ring has the next ones");
    publish(&hub, 10_000).await;
    assert_eq!(gap(&mut subscriber).await, (GapReason::Expired, id(2).to_string()));
    assert_eq!(take(&mut subscriber).await, [10_004, 10_005]);
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_falls_behind_the_retention_gets_a_gap() {
    let hub = hub(2000);
    let mut subscriber = subscribe(&hub, Cursor::Now);
    publish(&hub, 1).await;
    assert_eq!(take(&mut subscriber).await, [1]);
    publish(&hub, 20_000).await;
    assert_eq!(gap(&mut subscriber).await, (GapReason::Expired, id(1).to_string()));
    assert_eq!(subscriber.cursor(), id(18_001));
    assert_eq!(take(&mut subscriber).await, (18_002..=20_001).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_cursor_from_an_empty_log_resumes_without_a_gap() {
    let hub = hub(10);
    let cursor = subscribe(&hub, Cursor::Now).cursor();
    publish(&hub, 1).await;
    assert_eq!(take(&mut subscribe(&hub, Cursor::After(cursor))).await, [1]);
}

#[tokio::test(start_paused = true)]
async fn subscribers_get_their_topics_in_the_order_of_the_log() {
    let hub = hub(10_000);
    let mut old = hub.subscribe(patterns("a b.*"), Cursor::Now);
    for topic in ["a", "b.c", "c", "b.c.d", "a", "b.d"] {
        publish_to(&hub, topic).await;
    }
    assert_eq!(take(&mut old).await, [1, 2, 5, 6]);
    for (topics, expected) in [("a", vec![1, 5]), ("b.>", vec![2, 4, 6]), ("d", vec![])] {
        let mut new = hub.subscribe(patterns(topics), Cursor::Earliest);
        assert_eq!(take(&mut new).await, expected, "from the log: {topics}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_quiet_topic_causes_neither_wake_ups_nor_false_gaps() {
    let hub = hub(10);
    let mut quiet = hub.subscribe(patterns("quiet"), Cursor::Now);
    publish(&hub, 20_000).await;
    let mut next = tokio_test::task::spawn(quiet.next());
    assert!(next.poll().is_pending());
    publish(&hub, 1).await;
    assert!(!next.is_woken(), "woken by another topic");
    publish_to(&hub, "quiet").await;
    assert!(next.is_woken());
    drop(next);
    assert_eq!(take(&mut quiet).await, [20_002]);
    // A cursor older than the events of the busy topic causes no gap either.
    let mut back = hub.subscribe(patterns("quiet"), Cursor::After(id(3)));
    assert!(back.is_settled());
    assert_eq!(take(&mut back).await, [20_002]);
    assert!(!hub.subscribe(patterns("quiet clock"), Cursor::After(id(3))).is_settled());
}

#[tokio::test(start_paused = true)]
async fn the_cursor_of_a_quiet_subscriber_advances_with_the_log() {
    let hub = hub(10);
    let mut quiet = hub.subscribe(patterns("quiet"), Cursor::Now);
    publish(&hub, 5).await;
    assert!(take(&mut quiet).await.is_empty());
    assert_eq!(quiet.cursor(), id(5));
}

#[tokio::test(start_paused = true)]
async fn a_conflating_subscriber_that_is_behind_gets_the_newest_of_each_topic() {
    let hub = hub(10_000);
    let mut subscriber = hub.subscribe(patterns(">"), Cursor::After(id(0))).conflated();
    publish(&hub, 3000).await;
    publish_to(&hub, "orders").await;
    publish(&hub, 20).await;
    assert_eq!(take(&mut subscriber).await, [3001, 3021]);
    assert_eq!(subscriber.cursor(), id(3021));
    assert_eq!(subscriber.skipped(), Some(3019));
    // A subscriber that keeps up misses nothing.
    for sequence in 3022..3030 {
        publish(&hub, 1).await;
        assert_eq!(take(&mut subscriber).await, [sequence]);
    }
    assert_eq!(subscriber.skipped(), Some(3019));
}

#[tokio::test(start_paused = true)]
async fn a_conflating_subscriber_far_behind_reads_no_more_than_it_delivers() {
    let log = ShrinkingLog::new(log(20_000), |_| (0, 0));
    let reads = Arc::clone(&log.reads);
    let hub = Hub::new(log, || Timestamp::from_millis(0));
    publish_to(&hub, "orders").await;
    publish(&hub, 15_000).await;
    let subscribe = || hub.subscribe(patterns(">"), Cursor::Earliest);
    let mut direct = subscribe().conflated_without_count();
    assert_eq!(take(&mut direct).await, [1, 15_001]);
    assert_eq!((direct.cursor(), direct.skipped()), (id(15_001), None));
    publish(&hub, 3).await;
    assert_eq!(take(&mut direct).await, [15_004]);
    assert_eq!(reads.load(Ordering::Relaxed), 0, "only the newest events were read");
    let mut counting = subscribe().conflated();
    assert_eq!(take(&mut counting).await, [1, 15_004]);
    assert_eq!(counting.skipped(), Some(15_002));
    assert!(reads.load(Ordering::Relaxed) > 0);
}

#[tokio::test(start_paused = true)]
async fn a_reader_of_a_quiet_topic_gives_others_their_turn() {
    let hub = hub(10_000);
    publish(&hub, 1).await;
    publish_to(&hub, "quiet").await;
    publish(&hub, 3000).await;
    let mut subscriber = hub.subscribe(patterns("quiet"), Cursor::After(id(2)));
    let mut next = tokio_test::task::spawn(subscriber.next());
    let mut turns = 0;
    while {
        let _ = next.poll();
        next.is_woken()
    } {
        turns += 1;
    }
    drop(next);
    assert_eq!(turns, 3001 / WINDOW, "each window is a turn");
    publish_to(&hub, "quiet").await;
    assert_eq!(take(&mut subscriber).await, [3003]);
}

#[tokio::test]
async fn the_readers_of_many_topics_are_counted_in_their_order() {
    let hub = hub(1);
    let _readers = ["t.7", "t.7 *.7", "t.*", "t.* *.9998 >"]
        .map(|topics| hub.subscribe(patterns(topics), Cursor::Now));
    let topics: Vec<Topic> = (0..10_000).map(|n| format!("t.{n}").parse().unwrap()).collect();
    for (n, readers) in hub.readers(&topics).await.into_iter().enumerate() {
        let exact = if n == 7 { 2 } else { 0 };
        assert_eq!(readers, Readers { exact, by_pattern: 2 }, "{n}");
    }
    assert_eq!(hub.readers(&[]).await, []);
}

#[tokio::test(start_paused = true)]
async fn damaged_events_are_a_gap_in_their_place() {
    let hub = Hub::new(DamagedLog(log(20_000)), || Timestamp::from_millis(0));
    // More events than the ring holds.
    publish(&hub, 12_000).await;
    for (counts, is_conflated) in [(true, false), (true, true), (false, true)] {
        let mut subscriber = subscribe(&hub, Cursor::Earliest);
        if is_conflated {
            subscriber =
                if counts { subscriber.conflated() } else { subscriber.conflated_without_count() };
        }
        let (mut before, mut last) = (Vec::new(), 0);
        let reason = loop {
            match subscriber.next().await.unwrap() {
                Delivery::Events(batch) => {
                    before.extend(batch.iter().map(|frame| frame.event().id.sequence));
                    last = subscriber.cursor().sequence;
                }
                Delivery::Gap(gap) => {
                    assert_eq!(gap.cursor, id(last).to_string());
                    break gap.reason;
                }
                end @ Delivery::End { .. } => panic!("{end:?}"),
            }
        };
        assert_eq!((reason, last), (GapReason::Damaged, 999));
        assert_eq!(subscriber.cursor(), id(1001));
        let after = take(&mut subscriber).await;
        if is_conflated {
            assert_eq!((before.last(), after), (Some(&999), vec![12_000]));
        } else {
            assert_eq!(before, (1..=999).collect::<Vec<_>>());
            assert_eq!(after, (1002..=12_000).collect::<Vec<_>>());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_conflating_subscriber_gets_the_events_before_a_gap_first() {
    let log = ShrinkingLog::new(log(20_000), |reads| if reads > 1 { (3000, 3000) } else { (0, 0) });
    let hub = Hub::new(log, || Timestamp::from_millis(0));
    // More events than the ring holds, so that the lost ones are missing there, too.
    publish(&hub, 12_000).await;
    let mut subscriber = subscribe(&hub, Cursor::Earliest).conflated();
    let Delivery::Events(frames) = subscriber.next().await.unwrap() else { panic!("a gap") };
    let batch = Batch::LIMIT.count as u64;
    assert_eq!(frames.last().unwrap().event().id, id(batch));
    assert_eq!(subscriber.cursor(), id(batch), "a reconnect here gets the gap again");
    assert_eq!(gap(&mut subscriber).await, (GapReason::Expired, id(batch).to_string()));
    assert_eq!(take(&mut subscriber).await, [12_000]);
}

#[tokio::test(start_paused = true)]
async fn a_reader_advances_although_other_events_are_dropped_during_each_read() {
    // All events of `clock` are kept; another topic loses some during each read.
    let hub = Hub::new(ShrinkingLog::new(log(20_000), |reads| (0, 100_000 + reads)), || {
        Timestamp::from_millis(0)
    });
    publish(&hub, 12_000).await;
    for is_conflated in [false, true] {
        let mut subscriber = hub.subscribe(patterns(">"), Cursor::Earliest);
        if is_conflated {
            subscriber = subscriber.conflated();
        }
        let (mut sequences, mut gaps) = (Vec::new(), 0);
        while sequences.last() != Some(&12_000) {
            match subscriber.next().await.unwrap() {
                Delivery::Events(batch) => {
                    sequences.extend(batch.iter().map(|frame| frame.event().id.sequence));
                }
                Delivery::Gap(_) => gaps += 1,
                end @ Delivery::End { .. } => panic!("{end:?}"),
            }
            assert!(gaps <= 12_000 / Batch::LIMIT.count, "no gap is announced twice");
        }
        assert!(gaps > 1, "the reader is told of each loss");
        if !is_conflated {
            assert_eq!(sequences, (1..=12_000).collect::<Vec<_>>());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_conflating_subscriber_holds_no_more_than_a_limit() {
    const SIZE: usize = 60_000;
    let hub = hub(10_000);
    let mut subscriber = hub.subscribe(patterns(">"), Cursor::After(id(0))).conflated();
    let count = 3 * MAX_CONFLATED / SIZE;
    for number in 0..count {
        let topic = format!("board.{number}").parse().unwrap();
        hub.publish(Draft::new(topic, "x".repeat(SIZE))).await.unwrap();
    }
    let mut received = Vec::new();
    while received.len() < count {
        let Delivery::Events(batch) = subscriber.next().await.unwrap() else { panic!("a gap") };
        assert!(batch.len() * SIZE < MAX_CONFLATED + Batch::LIMIT.bytes);
        received.extend(batch.iter().map(|frame| frame.event().id.sequence));
    }
    assert_eq!(received, (1..=count as u64).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn the_latest_events_come_with_the_cursor_after_them() {
    let hub = hub(10);
    let clock = Topic::clock().into();
    assert_eq!(hub.latest(&clock, at_most(2)).await.unwrap().cursor, id(0));
    publish(&hub, 3).await;
    let latest = hub.latest(&clock, at_most(2)).await.unwrap();
    let ids: Vec<_> = latest.events.iter().map(|event| event.id).collect();
    assert_eq!((ids, latest.cursor), (vec![id(2), id(3)], id(3)));
    assert_eq!((latest.gap, latest.before), (None, Some(id(2))));
    assert_eq!(hub.latest(&clock, at_most(3)).await.unwrap().before, None);
    assert_eq!(hub.kept(), Some((id(1), id(3))));
    for _ in 0..2 {
        hub.publish(Draft::new(Topic::clock(), "xx")).await.unwrap();
    }
    let latest = hub.latest(&clock, ReadLimit { count: 9, bytes: 1 }).await.unwrap();
    assert_eq!((latest.events.len(), latest.before), (1, Some(id(5))));
}

/// Returns the sequence numbers of earlier events, the gap, and the position before the next ones.
async fn earlier(
    hub: &Hub,
    before: EventId,
    limit: usize,
) -> (Vec<u64>, Option<GapReason>, Option<EventId>) {
    let clock = Topic::clock().into();
    let Earlier { events, gap, before: rest } = hub.earlier(&clock, before, limit).await.unwrap();
    let cursor = gap.as_ref().map(|gap| gap.cursor.clone());
    assert!(cursor.is_none_or(|cursor| cursor == before.to_string()));
    (events.iter().map(|event| event.id.sequence).collect(), gap.map(|gap| gap.reason), rest)
}

#[tokio::test(start_paused = true)]
async fn earlier_events_come_with_the_position_before_them() {
    let hub = hub(4);
    assert_eq!(earlier(&hub, id(0), 9).await, (vec![], None, None));
    publish(&hub, 6).await;
    publish_to(&hub, "other").await;
    let future = Some(GapReason::Future);
    for (before, limit, expected) in [
        (id(7), 9, (vec![3, 4, 5, 6], None, None)),
        (id(7), 2, (vec![5, 6], None, Some(id(5)))),
        (id(5), 1, (vec![4], None, Some(id(4)))),
        (id(5), 2, (vec![3, 4], None, None)),
        (id(4), 2, (vec![3], None, None)),
        // The rest was dropped.
        (id(3), 2, (vec![], None, None)),
        (id(1), 2, (vec![], None, None)),
        (id(8), 2, (vec![5, 6], future, Some(id(5)))),
        (EventId { sequence: u64::MAX, ..id(1) }, 9, (vec![3, 4, 5, 6], future, None)),
        (EventId { epoch: Epoch::new(9), ..id(5) }, 2, (vec![], Some(GapReason::OtherEpoch), None)),
    ] {
        assert_eq!(earlier(&hub, before, limit).await, expected, "{before} {limit}");
    }
}

#[tokio::test(start_paused = true)]
async fn earlier_events_are_bounded() {
    let hub = hub(20_000);
    publish(&hub, 1500).await;
    let (events, _, before) = earlier(&hub, id(1500), usize::MAX).await;
    assert_eq!((events.len(), before), (Batch::LIMIT.count, Some(id(1500 - 512))));
    for _ in 0..9 {
        let draft = Draft::new(Topic::clock(), "x".repeat(Batch::LIMIT.bytes / 4));
        hub.publish(draft).await.unwrap();
    }
    let newest = EventId { sequence: hub.newest() + 1, ..id(1) };
    let (events, _, before) = earlier(&hub, newest, usize::MAX).await;
    assert_eq!((events, before), ((1506..=1509).collect(), Some(id(1506))));
    let (events, _, before) = earlier(&hub, id(1502), usize::MAX).await;
    assert_eq!(events.first(), before.map(|id| id.sequence).as_ref());
    assert_eq!(events.last(), Some(&1501));
}

#[tokio::test(start_paused = true)]
async fn damaged_events_are_announced_to_whoever_reads_backwards() {
    let hub = Hub::new(DamagedLog(log(20_000)), || Timestamp::from_millis(0));
    publish(&hub, 1010).await;
    let damaged = Some(GapReason::Damaged);
    for (before, limit, expected) in [
        (1004, 9, (vec![1002, 1003], None, Some(id(1002)))),
        (1002, 2, (vec![998, 999], damaged, Some(id(998)))),
        (1000, 2, (vec![998, 999], None, Some(id(998)))),
    ] {
        assert_eq!(earlier(&hub, id(before), limit).await, expected, "{before}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_latest_events_say_what_is_damaged_and_what_is_left() {
    for (published, limit, expected) in [
        // The damaged ones are 1,000 and 1,001.
        (999, 2, (vec![998, 999], None, Some(id(998)))),
        (1001, 2, (vec![998, 999], Some(GapReason::Damaged), Some(id(998)))),
        (1003, 9, (vec![1002, 1003], None, Some(id(1002)))),
    ] {
        let hub = Hub::new(DamagedLog(log(20_000)), || Timestamp::from_millis(0));
        publish(&hub, published).await;
        let clock = Topic::clock().into();
        let Latest { events, gap, before, cursor, .. } =
            hub.latest(&clock, at_most(limit)).await.unwrap();
        let events = events.iter().map(|event| event.id.sequence).collect::<Vec<_>>();
        assert_eq!((events, gap.map(|gap| gap.reason), before), expected);
        assert_eq!(cursor, id(published));
    }
    let hub = Hub::new(DamagedLog(log(20_000)), || Timestamp::from_millis(0));
    publish(&hub, 1001).await;
    let (_, gap, _) = earlier(&hub, id(5000), 2).await;
    assert_eq!(gap, Some(GapReason::Damaged), "more than a position in the future");
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_starts_with_the_first_event_of_a_time() {
    let now = Arc::new(AtomicU64::new(0));
    let hub = Hub::new(log(3), {
        let now = Arc::clone(&now);
        move || Timestamp::from_millis(now.load(Ordering::Relaxed))
    });
    for millis in [10, 20, 30, 40, 25] {
        now.store(millis, Ordering::Relaxed);
        publish(&hub, 1).await;
    }
    for (millis, expected) in
        [(0, &[3, 4, 5][..]), (30, &[3, 4, 5]), (31, &[4, 5]), (40, &[4, 5]), (41, &[])]
    {
        let time = Timestamp::from_millis(millis);
        let mut subscriber = hub.subscribe_since(Topic::clock().into(), time).await.unwrap();
        let before = expected.first().map_or(5, |first| first - 1);
        assert!(subscriber.is_settled() && subscriber.cursor() == id(before), "{millis}");
        assert_eq!(take(&mut subscriber).await, expected, "{millis}");
    }
    let time = Timestamp::from_millis(50);
    let mut subscriber = hub.subscribe_since(Topic::clock().into(), time).await.unwrap();
    publish(&hub, 1).await;
    assert_eq!(take(&mut subscriber).await, [6], "none is of that time, so it starts now");
}

#[tokio::test(start_paused = true)]
async fn an_event_that_was_not_kept_is_never_seen() {
    let hub = Hub::new(FullLog, || Timestamp::from_millis(0));
    let mut subscriber = subscribe(&hub, Cursor::Now);
    hub.publish(Draft::new(Topic::clock(), "")).await.unwrap_err();
    assert!(take(&mut subscriber).await.is_empty());
    assert!(hub.latest(&Topic::clock().into(), at_most(9)).await.unwrap().events.is_empty());
}

#[tokio::test(start_paused = true)]
async fn unread_events_are_counted_from_the_first_of_the_topics() {
    let hub = hub(20_000);
    let mut reader = hub.subscribe(patterns("quiet"), Cursor::Now);
    publish(&hub, 10_000).await;
    assert_eq!(reader.unread(), 0, "none of its topics");
    publish_to(&hub, "quiet").await;
    assert_eq!(reader.unread(), 1);
    publish(&hub, 5).await;
    publish_to(&hub, "quiet").await;
    assert_eq!(reader.unread(), 7);
    assert_eq!(reader.cursor(), id(0), "nothing is delivered yet");
    assert_eq!(take(&mut reader).await, [10_001, 10_007]);
    assert_eq!(reader.unread(), 0);
    // Events that were read together with the end of a topic count, too.
    let end = TopicEnd::done("quiet".parse().unwrap()).draft();
    publish_to(&hub, "quiet").await;
    hub.publish(end).await.unwrap();
    assert!(matches!(reader.next().await, Ok(Delivery::Events(_))));
    assert_eq!(reader.unread(), 1);
    assert!(matches!(reader.next().await, Ok(Delivery::End { .. })));
    assert_eq!(reader.unread(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_append_that_takes_long_can_be_seen() {
    let hub = hub(10);
    assert_eq!(hub.append_since(), None);
    let blocked = hub.state.appending.lock().await;
    let publishing = hub.enqueue(Draft::new(Topic::clock(), "")).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(hub.append_since().is_some_and(|since| since.elapsed() >= Duration::from_secs(5)));
    drop(blocked);
    publishing.await.unwrap();
    tokio::task::yield_now().await;
    assert_eq!(hub.append_since(), None);
}
