//! The membership of a reader in the channel of its topics: as long as it lasts, the reader is
//! counted, and the channel exists.

use std::sync::Arc;

use super::{
    channel::Channel,
    state::{Fanout, HubState},
};
use crate::pattern::Patterns;

/// The membership of one reader, until it is dropped.
pub(super) struct Membership {
    state: Arc<HubState>,
    topics: Patterns,
}

impl Membership {
    /// Joins the channel of the topics. Also returns the channel, and the newest sequence number
    /// of any topic at that time.
    pub(super) fn join(state: &Arc<HubState>, topics: &Patterns) -> (Self, Arc<Channel>, u64) {
        let (channel, newest) = {
            let Fanout { ring, channels, watched, .. } = &mut *state.fanout.lock();
            watched.join(topics);
            (channels.join(topics, ring.newest()), ring.newest())
        };
        state.note_readers(topics);
        (Self { state: Arc::clone(state), topics: topics.clone() }, channel, newest)
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        {
            let Fanout { channels, watched, .. } = &mut *self.state.fanout.lock();
            channels.leave(&self.topics);
            watched.leave(&self.topics);
        }
        self.state.note_readers(&self.topics);
    }
}
