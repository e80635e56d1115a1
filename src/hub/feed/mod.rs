//! Feeds: one reader for many subscribers that are at the same position.
//!
//! A subscriber that has read everything needs little more than its position. It rests, and a feed
//! reads on for it and for all others with the same topics. As soon as the feed meets something
//! that is not the same for all of them, such as a gap, each of them reads on by itself.

#[cfg(test)]
mod tests;

use std::{
    ops::RangeInclusive,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, ready},
};

use super::{
    frame::{Batch, Frame},
    membership::Membership,
    subscriber::{Delivery, Subscriber},
};
use crate::{event_log::EventLogError, id::EventId, notice::TopicEnd, pattern::Patterns};

/// The reader of subscribers that rest. It goes on from the position of the first of them.
pub struct Feed {
    subscriber: Subscriber,
    /// The position of a subscriber that has received all deliveries.
    position: ReadPosition,
    /// The same, without the last delivery.
    before_last: ReadPosition,
    /// Sequence number of the last event that was delivered; at the start, that of an earlier one.
    /// No event of the topics is between it and the position.
    delivered: u64,
}

/// A subscriber that rests while a [`Feed`] reads on for it. It still counts as a reader.
pub struct RestingSubscriber {
    membership: Membership,
    /// The position at which it began to rest. The feed may have yet to reach it.
    position: ReadPosition,
}

/// A position in the log from which a subscriber can read on.
#[derive(Clone, Copy)]
struct ReadPosition {
    /// Sequence number up to which all events were delivered.
    sequence: u64,
    /// Number of drops of the log of which the reader knows what it misses.
    drops: u64,
}

/// A delivery to those subscribers of a feed that are not past it.
#[derive(Debug)]
pub enum FeedDelivery {
    /// The next events, at least one.
    Events(Arc<Batch>),
    /// A topic has ended, and others have not.
    End {
        /// Its place in the log.
        id: EventId,
        /// The notice.
        end: TopicEnd,
    },
}

impl Feed {
    /// Creates the feed of a subscriber, which rests from now on and can be dropped. Returns `None`
    /// if it [cannot rest](Subscriber::can_rest) now.
    pub fn start(subscriber: &mut Subscriber) -> Option<(Self, RestingSubscriber)> {
        let resting = RestingSubscriber::new(subscriber)?;
        let position = resting.position;
        let subscriber = subscriber.at(position.sequence, position.drops, None);
        let delivered = subscriber.channel.newest().load(Ordering::Acquire).min(position.sequence);
        Some((Self { subscriber, position, before_last: position, delivered }, resting))
    }

    /// Lets a subscriber to the same topics rest, which can be dropped then. Returns `None` if it
    /// [cannot rest](Subscriber::can_rest) now, or if the feed has delivered events that it has
    /// yet to receive.
    pub fn rest(&self, subscriber: &mut Subscriber) -> Option<RestingSubscriber> {
        let is_behind = subscriber.cursor.sequence < self.delivered;
        if is_behind || subscriber.topics != self.subscriber.topics {
            return None;
        }
        RestingSubscriber::new(subscriber)
    }

    /// Lets a subscriber read on by itself that has received all deliveries.
    pub fn resume(&self, resting: RestingSubscriber) -> Subscriber {
        self.resume_at(self.position, resting)
    }

    /// Lets a subscriber read on by itself that has received all deliveries but the last one.
    pub fn resume_before_last(&self, resting: RestingSubscriber) -> Subscriber {
        self.resume_at(self.before_last, resting)
    }

    fn resume_at(&self, position: ReadPosition, resting: RestingSubscriber) -> Subscriber {
        let RestingSubscriber { membership, position: own } = resting;
        let sequence = own.sequence.max(position.sequence);
        self.subscriber.at(sequence, own.drops.max(position.drops), Some(membership))
    }

    /// Polls for the next events, or the next end. Returns `None` if each subscriber must read on
    /// by itself: at a gap, at the end of its last topic, and if the log cannot be read. After
    /// that, the feed must not be polled again.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<FeedDelivery>> {
        self.poll_next_by(Subscriber::poll_next, context)
    }

    /// Polls as [`poll_next`](Self::poll_next) does, with another function that polls the
    /// subscriber for its next delivery.
    pub fn poll_next_by(
        &mut self,
        poll: impl FnOnce(&mut Subscriber, &mut Context<'_>) -> Poll<Result<Delivery, EventLogError>>,
        context: &mut Context<'_>,
    ) -> Poll<Option<FeedDelivery>> {
        let polled = poll(&mut self.subscriber, context);
        let position = ReadPosition::of(&self.subscriber);
        if polled.is_pending() {
            // Events of other topics were passed.
            self.position = position;
        }
        let delivery = match ready!(polled) {
            Ok(Delivery::Events(batch)) => FeedDelivery::Events(batch),
            Ok(Delivery::End { id, end }) if !end.last => FeedDelivery::End { id, end },
            Ok(Delivery::End { .. } | Delivery::Gap(_)) | Err(_) => return Poll::Ready(None),
        };
        (self.before_last, self.position) = (self.position, position);
        self.delivered = *delivery.sequences().end();
        Poll::Ready(Some(delivery))
    }

    /// Returns the position from which a client resumes that has received all deliveries.
    pub fn cursor(&self) -> EventId {
        EventId { sequence: self.position.sequence, ..self.subscriber.cursor }
    }

    /// The topics that it reads.
    pub fn topics(&self) -> &Patterns {
        &self.subscriber.topics
    }
}

impl ReadPosition {
    fn of(subscriber: &Subscriber) -> Self {
        Self { sequence: subscriber.cursor.sequence, drops: subscriber.drops }
    }
}

impl FeedDelivery {
    /// Returns the sequence numbers of the first and the last event, or that of the end.
    pub fn sequences(&self) -> RangeInclusive<u64> {
        match self {
            Self::Events(batch) => {
                let sequence =
                    |frame: Option<&Arc<Frame>>| frame.map_or(0, |frame| frame.event().id.sequence);
                sequence(batch.first())..=sequence(batch.last())
            }
            Self::End { id, .. } => id.sequence..=id.sequence,
        }
    }
}

impl RestingSubscriber {
    fn new(subscriber: &mut Subscriber) -> Option<Self> {
        if !subscriber.can_rest() {
            return None;
        }
        let membership = subscriber.membership.take()?;
        Some(Self { membership, position: ReadPosition::of(subscriber) })
    }

    /// Sequence number up to which it had received all events when it began to rest. The feed may
    /// have yet to reach that position.
    pub fn position(&self) -> u64 {
        self.position.sequence
    }
}
