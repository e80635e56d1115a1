//! A hook for servers that want to know of refused permissions.

use std::{fmt, sync::Arc};

use axum::http::{Extensions, StatusCode};

use crate::problem::{Denial, Problem};

/// A request extension that is called for each permission (401 or 403) that is refused while the
/// response goes on: for a line of JSON, for a message over a WebSocket, or for a page without
/// events. A response that is itself such a refusal has a [`Denial`] as its extension instead.
#[derive(Clone)]
pub struct DenialHook(Arc<HookFunction>);

type HookFunction = dyn Fn(StatusCode, &Denial) + Send + Sync;

impl DenialHook {
    /// Wraps a function of the status and the detail.
    pub fn new(hook: impl Fn(StatusCode, &Denial) + Send + Sync + 'static) -> Self {
        Self(Arc::new(hook))
    }

    /// Calls the hook of a request, if it has one and the problem is a refused permission.
    pub fn call(request: &Extensions, problem: &Problem) {
        if let Some(Self(hook)) = request.get()
            && let Some(denial) = problem.denial()
        {
            hook(problem.status(), &denial);
        }
    }
}

impl fmt::Debug for DenialHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DenialHook").finish_non_exhaustive()
    }
}
