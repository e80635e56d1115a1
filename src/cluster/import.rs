//! The import of the log of a single process, which becomes the beginning of the order.
//!
//! A node proposes the log in parts, and at the end the beginning. The order decides on each part:
//! the first one chooses the log, and each later one must continue where the last one has ended. So
//! a part counts once, however often it is proposed, and nobody else can begin meanwhile. A node
//! that was stopped goes on where the order is.

use std::{path::PathBuf, time::Duration};

use tokio::time::{Instant, sleep, timeout};

use super::{
    doubts,
    follow_error::FollowError,
    follower::{self, LOSS_TIMEOUT, PAUSE},
    join_error::JoinError,
    log::{ClusterLog, MAX_REST, NodeSettings, PROPOSE_PAUSE},
    node::Node,
    sequencer::{OrderBounds, Sequencer, SequencerError},
};
use crate::{
    event_log::{
        EventLogError, ImportSource, Retention, SqliteLog,
        entry::{Entry, Mirrored, OrderPlace},
    },
    id::Epoch,
};

/// Number of proposals in a row that may bring nothing.
const MAX_ATTEMPTS: usize = 3;
/// Interval at which the output tells of the progress.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);

impl ClusterLog {
    /// Makes the log of a single process the beginning of the order, and puts a mirror in its
    /// place, which can then [join](Self::join). Returns the folder in which the log is kept aside.
    ///
    /// If this fails, or the process is stopped, a later call goes on. The log does not change
    /// before the cluster has all of it.
    ///
    /// # Errors
    ///
    /// If the cluster has begun already or cannot be reached, or if files cannot be written.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime, because it spawns a task that follows the order.
    pub async fn import(
        source: ImportSource,
        sequencer: impl Sequencer,
        settings: NodeSettings,
    ) -> Result<PathBuf, JoinError> {
        let mirror = source.open_mirror()?;
        let (mirror, is_final) = fitting(mirror, &source, &sequencer, settings.timeout).await?;
        let mirror = if is_final {
            mirror
        } else {
            let retention = settings.retention.clone();
            let log = Self::follow(mirror, sequencer, settings, Epoch::random().to_string());
            let imported = log.node().import(&source, retention).await;
            let mirror = log.leave().await.ok_or(EventLogError::Stopped)?;
            imported?;
            mirror
        };
        let folder = source.replace_by(mirror)?;
        tracing::info!(
            folder = %folder.display(),
            "the log is the beginning of the cluster now, and its old files were set aside"
        );
        Ok(folder)
    }
}

/// Returns `true` if the order has begun with the log.
fn has_begun_with(mirror: &SqliteLog, source: &ImportSource) -> bool {
    let Mirrored { retention, import, .. } = mirror.mirrored().unwrap_or_default();
    retention.is_some() && import.is_some_and(|import| import.log == *source.id())
}

/// Returns a mirror that fits to the stream, the given one or an empty one. The second part of the
/// result is `true` if the mirror has the whole log, and the stream no longer has it.
async fn fitting(
    mirror: SqliteLog,
    source: &ImportSource,
    sequencer: &dyn Sequencer,
    limit: Duration,
) -> Result<(SqliteLog, bool), JoinError> {
    // The mirror was damaged.
    let is_incomplete = mirror.mirrored().is_some_and(|mirrored| mirrored.is_joining);
    let mirror = if is_incomplete { mirror.empty_mirror()? } else { mirror };
    let unavailable = |elapsed| JoinError::Unreachable(SequencerError::unavailable(elapsed));
    let deadline = Instant::now() + LOSS_TIMEOUT;
    let (bounds, checked) = loop {
        let bounds = timeout(limit, sequencer.bounds()).await.map_err(unavailable)?;
        let bounds = bounds.map_err(JoinError::Unreachable)?;
        let checked = timeout(limit, follower::check(&mirror, sequencer, &bounds)).await;
        match checked.map_err(unavailable)? {
            Err(FollowError::Short) if Instant::now() < deadline => sleep(PAUSE).await,
            checked => break (bounds, checked),
        }
    };
    let mirror = match checked {
        // Entries were removed since.
        Err(FollowError::TooFarBehind) if has_begun_with(&mirror, source) => {
            return Ok((mirror, true));
        }
        // The order has what the mirror has had, or the import begins again.
        Err(error) if error.needs_new_mirror() || matches!(error, FollowError::Short) => {
            mirror.empty_mirror()?
        }
        // The follower tells of it.
        _ => mirror,
    };
    let is_empty = mirror.mirrored().unwrap_or_default().place.position == 0;
    let OrderBounds { first, .. } = bounds;
    // Entries are removed only after the beginning.
    if is_empty && first > 1 { Err(JoinError::HasBegun) } else { Ok((mirror, false)) }
}

impl Node {
    /// Proposes the log, part by part, until the order has begun with it.
    async fn import(&self, source: &ImportSource, retention: Retention) -> Result<(), JoinError> {
        let size = self.sequencer.max_entry().saturating_sub(MAX_REST);
        self.catch_up_with_order().await?;
        tracing::info!(end = source.end(), "the log becomes the beginning of the cluster");
        let (mut attempts, mut last, mut reported) = (0, None, Instant::now());
        loop {
            let Mirrored { retention: begun, import, .. } = self.mirrored();
            if begun.is_some() {
                let is_own = has_begun_with(&self.mirror, source);
                return if is_own { self.verify().await } else { Err(JoinError::HasBegun) };
            }
            if import.as_ref().is_some_and(|import| import.log != *source.id()) {
                return Err(JoinError::OtherImport);
            }
            let up_to = import.as_ref().map_or(0, |import| import.up_to);
            if reported.elapsed() >= REPORT_INTERVAL {
                tracing::info!(up_to, end = source.end(), "the cluster has a part of the log");
                reported = Instant::now();
            }
            if import != last {
                (attempts, last) = (0, import.clone());
            }
            let entry = if import.is_some_and(|import| import.is_complete) {
                Entry::Begin { epoch: source.epoch(), retention: retention.clone() }
            } else {
                Entry::Import(source.part(up_to, size).await?)
            };
            let proposed = self.propose(entry).await;
            attempts += 1;
            self.check_follower()?;
            match proposed {
                Err(error) if attempts >= MAX_ATTEMPTS => return Err(JoinError::Import(error)),
                Err(_) => sleep(PROPOSE_PAUSE).await,
                // Another node has proposed the same. Then there is progress at the next look.
                Ok(_) => {}
            }
        }
    }

    /// Waits until the mirror has applied the entries that the order has now.
    async fn catch_up_with_order(&self) -> Result<(), JoinError> {
        let unavailable = |elapsed| JoinError::Unreachable(SequencerError::unavailable(elapsed));
        let bounds = timeout(self.timeout, self.sequencer.bounds()).await.map_err(unavailable)?;
        let last = bounds.map_err(JoinError::Unreachable)?.last;
        let mut status = self.status.subscribe();
        while self.mirrored().place.position < last {
            status.mark_unchanged();
            self.check_follower()?;
            // An error means that the follower has ended, which it tells of before.
            let _ = timeout(self.timeout, status.changed()).await.map_err(unavailable)?;
        }
        Ok(())
    }

    /// Checks that the stream has the whole log, which is set aside next.
    async fn verify(&self) -> Result<(), JoinError> {
        match doubts::verify(self, OrderPlace::default()).await {
            Ok(_) => Ok(()),
            Err(FollowError::Ahead) => {
                self.mirror.leave().await?;
                Err(JoinError::StartAgain(EventLogError::new(FollowError::Ahead.to_string())))
            }
            Err(error) => Err(JoinError::Import(EventLogError::new(error.to_string()))),
        }
    }

    /// Returns an error if the node no longer follows the order.
    fn check_follower(&self) -> Result<(), JoinError> {
        let status = self.status.borrow();
        let Some(failure) = status.failure.as_deref().cloned() else { return Ok(()) };
        Err(if status.needs_restart {
            JoinError::StartAgain(failure)
        } else {
            JoinError::Import(failure)
        })
    }
}
