//! Checks of the set-up that go on while a node runs.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, task::JoinHandle, time::sleep};

use crate::{connect, error::ConnectError, settings::NatsSettings};

/// Pause between two checks.
const PAUSE: Duration = Duration::from_secs(5);

/// A task that checks the set-up until it is good. Dropping it ends the task.
pub(crate) struct Checks {
    error: watch::Receiver<Option<Arc<ConnectError>>>,
    task: JoinHandle<()>,
}

impl Checks {
    pub fn start(settings: NatsSettings) -> Self {
        let (found, error) = watch::channel(None);
        let task = tokio::spawn(run(settings, found));
        Self { error, task }
    }

    /// Returns the error that the last check has found, unless it may pass.
    pub fn error(&self) -> Option<Arc<ConnectError>> {
        self.error.borrow().clone()
    }
}

impl Drop for Checks {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(settings: NatsSettings, found: watch::Sender<Option<Arc<ConnectError>>>) {
    while let Err(error) = connect::connect(&settings).await {
        if !error.may_pass() {
            tracing::error!("the cluster accepts no events of this node: {error}");
            found.send_replace(Some(Arc::new(error)));
        }
        sleep(PAUSE).await;
    }
    found.send_replace(None);
    tracing::info!("the servers of NATS and the stream are set up as they must be");
}
