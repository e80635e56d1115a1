//! The count of the events that one subscriber has received.

use memchr::memmem;

/// The text before the number of an event. No server writes it by itself.
const MARK: &str = "bench-";

/// Returns the data of an event: its number, the time in nanoseconds, and padding to about `size`
/// bytes. It needs no escaping in a form or in JSON.
pub fn data(number: usize, time: u64, size: usize) -> String {
    let text = format!("{MARK}{number}-{time}-");
    let padding = size.saturating_sub(text.len()).max(1);
    text + &"x".repeat(padding)
}

/// Events that a subscriber should have received exactly once and in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    pub missing: usize,
    pub duplicates: usize,
    /// Events that arrived after a later one.
    pub disordered: usize,
}

impl Faults {
    /// Returns the faults of both.
    pub fn and(self, other: Self) -> Self {
        Self {
            missing: self.missing + other.missing,
            duplicates: self.duplicates + other.duplicates,
            disordered: self.disordered + other.disordered,
        }
    }
}

/// The events of one subscriber.
#[derive(Default)]
pub struct Tally {
    /// The beginning of an event that is not complete yet.
    rest: Vec<u8>,
    /// The number of times that each event has arrived, by event number.
    seen: Vec<u8>,
    disordered: usize,
    /// The number of events that have arrived.
    pub events: usize,
}

impl Tally {
    /// Counts the events in a part of the body. Adds the time from the publishing of each to
    /// `now` to `latencies`, in nanoseconds.
    pub fn received(&mut self, bytes: &[u8], now: u64, latencies: &mut Vec<u64>) {
        let joined;
        let bytes = if self.rest.is_empty() {
            bytes
        } else {
            self.rest.extend(bytes);
            joined = std::mem::take(&mut self.rest);
            &joined
        };
        // The bytes after the end of the last block are an incomplete block.
        let (complete, rest) = bytes.split_at(end_of_blocks(bytes));
        self.rest = rest.to_vec();
        for at in memmem::find_iter(complete, MARK) {
            let mut after = &complete[at + MARK.len()..];
            let (number, sent) = (take_number(&mut after), take_number(&mut after));
            self.count(usize::try_from(number).unwrap());
            latencies.push(now.saturating_sub(sent));
        }
    }

    fn count(&mut self, number: usize) {
        self.events += 1;
        if self.seen.len() <= number {
            self.seen.resize(number + 1, 0);
        } else if self.seen[number] == 0 {
            self.disordered += 1;
        }
        self.seen[number] = self.seen[number].saturating_add(1);
    }

    /// Returns the faults, if the events from 0 to `count` were published.
    pub fn faults(&self, count: usize) -> Faults {
        let distinct = self.seen.iter().filter(|times| **times > 0).count();
        Faults {
            missing: count.saturating_sub(distinct),
            duplicates: self.events - distinct,
            disordered: self.disordered,
        }
    }

    /// Forgets all events.
    pub fn reset(&mut self) {
        let rest = std::mem::take(&mut self.rest);
        *self = Self { rest, ..Self::default() };
    }
}

/// Returns the end of the last complete block. An empty line ends a block.
fn end_of_blocks(bytes: &[u8]) -> usize {
    let end = memmem::rfind(bytes, b"\n\n").map_or(0, |at| at + 2);
    let after = memmem::rfind(&bytes[end..], b"\r\n\r\n").map_or(0, |at| at + 4);
    end + after
}

/// Takes a number and the character after it.
fn take_number(bytes: &mut &[u8]) -> u64 {
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (number, rest) = bytes.split_at(digits);
    *bytes = rest.get(1..).unwrap_or_default();
    number.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(numbers: &[usize]) -> Tally {
        let (mut tally, mut latencies) = (Tally::default(), Vec::new());
        for number in numbers {
            let block = format!("id: 1\ndata: {}\n\n", data(*number, 7, 40));
            tally.received(block.as_bytes(), 10, &mut latencies);
        }
        assert_eq!(latencies, vec![3; numbers.len()]);
        tally
    }

    #[test]
    fn events_that_arrive_once_and_in_order_have_no_faults() {
        assert_eq!(tally(&[0, 1, 2]).faults(3), Faults::default());
    }

    #[test]
    fn missing_doubled_and_disordered_events_are_counted() {
        let faults = |numbers: &[usize], count| {
            let Faults { missing, duplicates, disordered } = tally(numbers).faults(count);
            [missing, duplicates, disordered]
        };
        assert_eq!(faults(&[0, 2], 3), [1, 0, 0]);
        assert_eq!(faults(&[0, 1], 3), [1, 0, 0]);
        assert_eq!(faults(&[0, 1, 1], 2), [0, 1, 0]);
        assert_eq!(faults(&[0, 2, 1], 3), [0, 0, 1]);
    }

    #[test]
    fn events_are_found_wherever_the_bytes_are_split() {
        let blocks = [
            format!("id: 1\ndata: {}\n\n", data(0, 5, 30)),
            format!("data:{{\"v\":\"{}\"}}\r\n\r\n", data(1, 6, 30)),
        ]
        .concat();
        for size in 1..=blocks.len() {
            let (mut tally, mut latencies) = (Tally::default(), Vec::new());
            for part in blocks.as_bytes().chunks(size) {
                tally.received(part, 10, &mut latencies);
            }
            assert_eq!((tally.faults(2), latencies), (Faults::default(), vec![5, 4]));
        }
    }

    #[test]
    fn an_incomplete_block_does_not_count() {
        let mut tally = Tally::default();
        tally.received(b"data: bench-0-1-xxx\n", 1, &mut Vec::new());
        assert_eq!(tally.events, 0);
    }

    #[test]
    fn the_data_of_an_event_has_the_size_asked_for() {
        assert_eq!(data(17, 123, 100).len(), 100);
        assert_eq!(data(17, 123, 0), "bench-17-123-x");
    }
}
