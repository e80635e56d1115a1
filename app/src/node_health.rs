//! The node of a cluster that serves the page's stream: its name, and a notice while it is away
//! from its cluster or behind it. A server that is no node is not asked, and nothing is shown of
//! it.

use std::{cell::Cell, rc::Rc, time::Duration};

use leptos::{prelude::*, task::spawn_local};
use waterclock_leptos::browser::internal::{FromJson, Json};

use crate::{
    browser,
    labels::count,
    reactive::{effect, text},
};

/// The state of the server that answers.
const URL: &str = "/health/state";
/// Interval between two looks at a node, from the page's clock.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// The same while the node has a problem.
const LOOK_AGAIN_EVERY: Duration = Duration::from_secs(5);
/// Age of the node's last answer from which it says nothing of now. A load balancer may have let
/// other nodes answer since.
const KEPT_FOR: Duration = Duration::from_secs(30);
/// Number of changes by which a node is behind. A node that is busy always has some on their way.
const MIN_LAG: u64 = 100;

/// The state of a node, as [`URL`] has it.
#[derive(Clone, Debug, Default)]
struct NodeHealth {
    node: Option<String>,
    lag: u64,
    is_away: bool,
    read_error: Option<String>,
    publish_error: Option<String>,
}

impl FromJson for NodeHealth {
    fn from_json(json: &Json) -> Option<Self> {
        Some(Self {
            node: json.parse("node"),
            lag: json.number("lag").unwrap_or_default(),
            is_away: json.is_true("away"),
            read_error: json.parse("read_error"),
            publish_error: json.parse("publish_error"),
        })
    }
}

/// A text about a problem of a node. Both parts are empty if there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct NodeProblem {
    text: String,
    lag: String,
}

impl NodeProblem {
    fn of(node: &str, health: &NodeHealth) -> Self {
        let NodeHealth { lag, is_away, read_error, publish_error, .. } = health;
        let changes = count(*lag, "change");
        let (text, lag) = match (read_error, is_away, publish_error) {
            (Some(error), ..) => ([" cannot read its events: ", error].concat(), String::new()),
            (None, true, _) => {
                let text = " cannot reach its cluster: it shows the events that it has, and \
                            publishing fails until the cluster is back";
                (text.to_owned(), String::new())
            }
            (None, false, Some(error)) => {
                let lag = match lag {
                    0 => String::new(),
                    _ => [", and is ", &changes, " behind its cluster"].concat(),
                };
                ([" cannot publish: ", error].concat(), lag)
            }
            (None, false, None) if *lag >= MIN_LAG => {
                (" is behind its cluster".to_owned(), [" by ", &changes].concat())
            }
            (None, false, None) => return Self::default(),
        };
        Self { text: [node, &text].concat(), lag }
    }
}

/// The times of the looks at a node, by the page's clock.
#[derive(Clone, Copy, Debug, Default)]
struct Looks {
    /// The last request. `None` if the next one is due at once.
    asked: Option<Duration>,
    /// The last answer of the node itself.
    answered: Duration,
    is_in_flight: bool,
}

impl Looks {
    fn is_due(self, now: Duration, has_problem: bool) -> bool {
        let pause = if has_problem { LOOK_AGAIN_EVERY } else { LOOK_EVERY };
        let is_later = |asked| now.saturating_sub(asked) >= pause;
        !self.is_in_flight && self.asked.is_none_or(is_later)
    }

    fn is_outdated(self, now: Duration) -> bool {
        now.saturating_sub(self.answered) >= KEPT_FOR
    }
}

/// The node that serves a stream, and its problem, in texts.
#[derive(Clone, Copy)]
pub(crate) struct NodeTexts {
    /// The name. Empty while there is no stream, or if the server is no node.
    node: RwSignal<String>,
    problem: RwSignal<String>,
    /// The rest of the problem. It is not announced, because its number changes with each look.
    lag: RwSignal<String>,
}

impl NodeTexts {
    /// Looks at the node of that name when the name changes, and then again and again while the
    /// page is visible. `node` is reactive, and must return `None` while there is no stream.
    pub(crate) fn new(node: impl Fn() -> Option<String> + 'static) -> Self {
        let texts = Self {
            node: RwSignal::default(),
            problem: RwSignal::default(),
            lag: RwSignal::default(),
        };
        let looks = Rc::new(Cell::new(Looks::default()));
        let tick = Rc::clone(&looks);
        effect(move || {
            let node = node().unwrap_or_default();
            if *texts.node.read_untracked() != node {
                texts.node.set(node);
                texts.tell(NodeProblem::default());
                looks.set(Looks { asked: None, ..looks.get() });
                texts.look(&looks);
            }
        });
        effect(move || {
            let looks = Rc::clone(&tick);
            browser::every_second(move || texts.look(&looks));
        });
        texts
    }

    fn tell(self, problem: NodeProblem) {
        self.problem.set(problem.text);
        self.lag.set(problem.lag);
    }

    /// Asks the node, if that is due.
    fn look(self, looks: &Rc<Cell<Looks>>) {
        let node = self.node.get_untracked();
        let has_problem = !self.problem.read_untracked().is_empty();
        let now = browser::now();
        if node.is_empty() || !browser::is_visible() || !looks.get().is_due(now, has_problem) {
            return;
        }
        looks.set(Looks { asked: Some(now), is_in_flight: true, ..looks.get() });
        let looks = Rc::clone(looks);
        spawn_local(async move {
            let json = browser::get_json(URL.to_owned()).await.ok();
            looks.set(Looks { is_in_flight: false, ..looks.get() });
            // The page may be gone meanwhile, or have another stream.
            if self.node.try_get_untracked().as_ref() != Some(&node) {
                return;
            }
            let now = browser::now();
            let health = json.as_ref().and_then(NodeHealth::from_json);
            match health.filter(|health| health.node.as_ref() == Some(&node)) {
                Some(health) => {
                    looks.set(Looks { answered: now, ..looks.get() });
                    self.tell(NodeProblem::of(&node, &health));
                }
                None if looks.get().is_outdated(now) => self.tell(NodeProblem::default()),
                None => {}
            }
        });
    }
}

/// The name of the node, after the state of the stream.
#[component]
pub(crate) fn NodeName(texts: NodeTexts) -> impl IntoView {
    let name = text(move || {
        let node = texts.node.get();
        if node.is_empty() { node } else { [" · ", &node].concat() }
    });
    view! { <span class="node" translate="no" prop:textContent=name></span> }
}

/// The notice about a problem of the node.
#[component]
pub(crate) fn NodeNotice(texts: NodeTexts) -> impl IntoView {
    view! {
        <p class="notice">
            <span role="status" prop:textContent=texts.problem></span>
            <span prop:textContent=texts.lag></span>
        </p>
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn problem(health: &NodeHealth) -> String {
        let NodeProblem { text, lag } = NodeProblem::of("node-1", health);
        text + &lag
    }

    #[test]
    fn a_problem_says_what_it_means_for_the_reader() {
        let error = || Some("the disk is full".to_owned());
        let away = NodeHealth {
            is_away: true,
            publish_error: Some("the cluster cannot be reached".to_owned()),
            ..NodeHealth::default()
        };
        for (health, expected) in [
            (NodeHealth::default(), ""),
            (NodeHealth { lag: MIN_LAG - 1, ..NodeHealth::default() }, ""),
            (
                NodeHealth { lag: 1200, ..NodeHealth::default() },
                "node-1 is behind its cluster by 1,200 changes",
            ),
            (
                away.clone(),
                "node-1 cannot reach its cluster: it shows the events that it has, and \
                 publishing fails until the cluster is back",
            ),
            (
                NodeHealth { publish_error: error(), ..NodeHealth::default() },
                "node-1 cannot publish: the disk is full",
            ),
            (
                NodeHealth { publish_error: error(), lag: 1, ..NodeHealth::default() },
                "node-1 cannot publish: the disk is full, and is 1 change behind its cluster",
            ),
            (
                NodeHealth { read_error: error(), ..away },
                "node-1 cannot read its events: the disk is full",
            ),
        ] {
            assert_eq!(problem(&health), expected);
        }
    }

    #[test]
    fn the_announced_text_has_no_number_that_changes() {
        let text = |lag| NodeProblem::of("n", &NodeHealth { lag, ..NodeHealth::default() }).text;
        assert_eq!(text(100), text(99_999));
    }

    #[test]
    fn a_look_is_due_at_once_and_then_at_intervals() {
        let mut looks = Looks::default();
        assert!(looks.is_due(Duration::ZERO, false));
        looks.asked = Some(SECOND);
        for (seconds, with_problem, without) in
            [(1, false, false), (5, false, false), (6, true, false), (11, true, true)]
        {
            assert_eq!(looks.is_due(SECOND * seconds, true), with_problem, "{seconds}");
            assert_eq!(looks.is_due(SECOND * seconds, false), without, "{seconds}");
        }
        looks.is_in_flight = true;
        assert!(!looks.is_due(SECOND * 60, true), "one request at a time");
    }

    #[test]
    fn an_answer_is_outdated_after_a_while_without_another() {
        let looks = Looks { answered: SECOND, ..Looks::default() };
        assert!(!looks.is_outdated(KEPT_FOR));
        assert!(looks.is_outdated(KEPT_FOR + SECOND));
    }
}
