//! How things are said on the page.

use waterclock::notice::{Gap, GapReason, GoodbyeReason};
use waterclock_leptos::{
    connection::{Reason, State},
    tab::Role,
};

/// The connection's state, in words.
pub(crate) fn state_in_words(state: &State) -> &'static str {
    match state {
        State::Idle => "Not connected",
        State::Connecting => "Connecting",
        State::Live => "Live",
        State::Reconnecting => "Connection lost, trying again",
        State::Stale => "Nothing heard for long, connecting anew",
        State::Waiting { .. } => "No connection",
        State::Stopped => "Stopped",
    }
}

pub(crate) fn gap_in_words(gap: &Gap) -> &'static str {
    match gap.reason {
        GapReason::Expired => "Events missing: no longer kept",
        GapReason::OtherEpoch => "New log: events may be missing",
        GapReason::Future | GapReason::Malformed => "Events may be missing here",
    }
}

pub(crate) fn reason_in_words(reason: &Reason) -> String {
    match reason {
        Reason::Goodbye(GoodbyeReason::Draining) => "The server is stopping".to_owned(),
        Reason::Goodbye(GoodbyeReason::Expired) => "The permission to read has expired".to_owned(),
        Reason::Goodbye(GoodbyeReason::Limit) => {
            "The server has as many streams as it allows".to_owned()
        }
        Reason::Unreachable => "The server cannot be reached".to_owned(),
        Reason::Offline => "The browser says that it is offline".to_owned(),
        Reason::Status { status: 204, .. } => "The server says that there is no more".to_owned(),
        Reason::Status { status, detail: None } => {
            format!("The server answered with status {status}")
        }
        Reason::Status { status, detail: Some(detail) } => {
            format!("The server answered with status {status}: {}", detail.trim_end_matches('.'))
        }
        Reason::ContentType(kind) if kind.is_empty() => {
            "The server answered with something that is not a stream".to_owned()
        }
        Reason::ContentType(kind) => {
            format!("The server answered with {kind}, which is not a stream")
        }
        Reason::Recovered => "The server answers again".to_owned(),
    }
}

/// The document's title: what is shown, and how the connection is, with the mark that the style sheet has for the state.
pub(crate) fn title_with(state: &State, title: &str) -> String {
    let mark = match state {
        State::Idle => return title.to_owned(),
        State::Live => "●",
        State::Connecting | State::Reconnecting | State::Stale => "◌",
        State::Waiting { .. } => "△",
        State::Stopped => "■",
    };
    format!("{mark} {} · {title}", state_in_words(state))
}

/// The state as the style sheet knows it.
pub(crate) fn state_key(state: &State) -> &'static str {
    match state {
        State::Idle => "idle",
        State::Connecting => "connecting",
        State::Live => "live",
        State::Reconnecting => "reconnecting",
        State::Stale => "stale",
        State::Waiting { .. } => "waiting",
        State::Stopped => "stopped",
    }
}

/// Who has the connection, if there is one, and who shares it.
pub(crate) fn sharing_in_words(role: Role, state: &State, tabs: Option<usize>) -> String {
    let tabs = match (role, tabs) {
        (Role::Out | Role::Away, _) => return String::new(),
        (Role::Alone, _) if *state != State::Live => return String::new(),
        (Role::Alone, _) => {
            return "A connection for this tab alone: tabs share one over HTTPS, or on the server's machine"
                .to_owned();
        }
        (_, None | Some(0 | 1)) => "1 tab".to_owned(),
        (_, Some(tabs)) => format!("{tabs} tabs"),
    };
    if *state == State::Live { tabs + ", 1 connection" } else { tabs }
}
