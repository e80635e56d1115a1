//! Checks of the set-up that go on while a node runs.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, task::JoinHandle, time::sleep};

use crate::{
    connect::{self, MissingStream},
    error::ConnectError,
    settings::NatsSettings,
};

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

    /// Returns the last error that does not pass by itself, until a check succeeds.
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
    while let Err(error) = connect::connect(&settings, MissingStream::Await).await {
        if !error.may_pass() {
            let text = error.to_string();
            found.send_if_modified(|found| {
                let is_new = found.as_ref().is_none_or(|found| found.to_string() != text);
                if is_new {
                    tracing::error!("the cluster accepts no events of this node: {text}");
                    *found = Some(Arc::new(error));
                }
                is_new
            });
        }
        sleep(PAUSE).await;
    }
    found.send_replace(None);
    tracing::info!("the servers of NATS and the stream are set up as they must be");
}
