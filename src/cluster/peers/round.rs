//! The rules of a question to all nodes: whose answers to wait for, and when they are complete.

use std::{
    collections::{HashMap, HashSet},
    mem,
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};

use super::message::{PeerAnswer, PeerQuestion};
use crate::id::Epoch;

/// Time after which a node that is no longer heard is no member any more.
const FORGET_TIME: Duration = Duration::from_secs(10);
/// Time for which a node must have heard itself to know all others.
const SETTLE_TIME: Duration = Duration::from_secs(3);
/// Time without a message of a node after which some of its messages may have been lost.
const LOSS_TIME: Duration = Duration::from_millis(2500);
/// Minimum time between two notes that the numbers of readers may be old.
const NOTE_INTERVAL: Duration = Duration::from_secs(10);
/// Maximum number of nodes that are known.
const MAX_NODES: usize = 100;

/// The nodes that are known, and the questions that wait for answers.
pub struct Rounds {
    me: Epoch,
    /// This node is one of them.
    nodes: HashMap<Epoch, HeardNode>,
    /// Time since which this node has heard itself, without a long silence.
    hears_since: Option<Instant>,
    /// `true` if the engine has denied messages since the node has last heard itself.
    is_denied: bool,
    /// `true` if the readers of any topic may be others than were counted, without a message that
    /// says so.
    are_counts_old: bool,
    /// Time at which this was last taken.
    noted: Option<Instant>,
    open: HashMap<u64, Round>,
    /// Number of the last question.
    asked: u64,
}

/// A node that was heard.
struct HeardNode {
    heard: Instant,
    /// `true` if it has not answered since it was heard.
    is_silent: bool,
    has_views: bool,
}

impl HeardNode {
    fn is_member(&self, now: Instant) -> bool {
        now.duration_since(self.heard) < FORGET_TIME
    }
}

/// A question that waits for answers.
struct Round {
    question: PeerQuestion,
    topics: usize,
    /// The nodes that have not answered yet although they were heard.
    awaited: HashSet<Epoch>,
    /// The nodes that have answered. This node answers nothing.
    answers: HashMap<Epoch, Option<PeerAnswer>>,
    all: Option<oneshot::Sender<()>>,
}

/// The answers to a question.
pub struct Answers {
    pub of_others: Vec<PeerAnswer>,
    /// `true` if all nodes have answered.
    pub are_all: bool,
}

impl Rounds {
    pub fn new(me: Epoch) -> Self {
        Self {
            me,
            nodes: HashMap::new(),
            hears_since: None,
            is_denied: false,
            are_counts_old: false,
            noted: None,
            open: HashMap::new(),
            asked: 0,
        }
    }

    /// Notes that the engine has denied messages.
    pub fn deny(&mut self) {
        self.are_counts_old |= !self.is_denied;
        self.is_denied = true;
    }

    /// Returns `true` if the engine has denied messages since the node has last heard itself.
    pub fn is_denied(&self) -> bool {
        self.is_denied
    }

    /// Notes that the readers of any topic may be others than were counted.
    pub fn note_any(&mut self) {
        self.are_counts_old = true;
    }

    /// Returns `true` if the readers of any topic may be others than were counted, since this was
    /// last the result; at most once in some seconds.
    pub fn take_any(&mut self, now: Instant) -> bool {
        self.forget_nodes(now);
        let is_early = self.noted.is_some_and(|noted| now.duration_since(noted) < NOTE_INTERVAL);
        if is_early || !self.are_counts_old {
            return false;
        }
        (self.are_counts_old, self.noted) = (false, Some(now));
        true
    }

    /// Forgets the nodes that are no members any more.
    fn forget_nodes(&mut self, now: Instant) {
        let known = self.nodes.len();
        self.nodes.retain(|_, node| node.is_member(now));
        self.are_counts_old |= self.nodes.len() < known;
    }

    /// Notes that a node is there. If this is new, counts are old.
    pub fn hear(&mut self, node: Epoch, now: Instant) {
        if node == self.me {
            self.are_counts_old |= mem::take(&mut self.is_denied);
            if !self.nodes.get(&node).is_some_and(|me| me.is_member(now)) {
                self.hears_since = Some(now);
            }
        }
        self.forget_nodes(now);
        if let Some(known) = self.nodes.get_mut(&node) {
            let has_lost = now.duration_since(known.heard) > LOSS_TIME;
            self.are_counts_old |= known.is_silent || has_lost;
            (known.heard, known.is_silent) = (now, false);
        } else if self.nodes.len() < MAX_NODES || node == self.me {
            let heard = HeardNode { heard: now, is_silent: false, has_views: false };
            self.nodes.insert(node, heard);
            self.are_counts_old = true;
        }
    }

    /// Notes if a node wants to know which readers change.
    pub fn note_views(&mut self, node: Epoch, has_views: bool) {
        if let Some(node) = self.nodes.get_mut(&node) {
            node.has_views = has_views;
        }
    }

    /// Returns `true` if another node wants to know which readers change.
    pub fn have_views(&self) -> bool {
        self.nodes.iter().any(|(node, heard)| *node != self.me && heard.has_views)
    }

    /// Returns `true` if a node is a member, and has not left a question unanswered since it was
    /// heard.
    pub fn answers(&self, node: Epoch, now: Instant) -> bool {
        self.nodes.get(&node).is_some_and(|node| node.is_member(now) && !node.is_silent)
    }

    /// Returns `true` if there are other nodes, and this one can ask them.
    pub fn are_there_others(&self, now: Instant) -> bool {
        let can_ask = !self.is_denied && self.answers(self.me, now);
        can_ask && self.members(now).any(|node| node != self.me)
    }

    /// Returns the nodes that were heard in the last seconds.
    pub fn members(&self, now: Instant) -> impl Iterator<Item = Epoch> {
        let nodes = self.nodes.iter();
        nodes.filter(move |(_, node)| node.is_member(now)).map(|(node, _)| *node)
    }

    /// Begins a question. Returns its number, and a receiver that is told once all nodes have
    /// answered. A count does not wait for those that have not answered before.
    pub fn begin(
        &mut self,
        question: PeerQuestion,
        topics: usize,
        now: Instant,
    ) -> (u64, oneshot::Receiver<()>) {
        let (all, receiver) = oneshot::channel();
        let needs_all = question == PeerQuestion::Absences;
        let is_awaited = |node: &Epoch| needs_all || self.answers(*node, now);
        let mut awaited: HashSet<_> = self.members(now).filter(is_awaited).collect();
        awaited.insert(self.me);
        self.asked += 1;
        let round = Round { question, topics, awaited, answers: HashMap::new(), all: Some(all) };
        self.open.insert(self.asked, round);
        (self.asked, receiver)
    }

    /// Notes the answer of a node to a question. That of this node is that it hears the question.
    pub fn answer(&mut self, number: u64, from: Epoch, answer: Option<PeerAnswer>) {
        let Some(round) = self.open.get_mut(&number) else { return };
        if let Some(answer) = &answer
            && (from == self.me || !answer.fits(round.question, round.topics))
        {
            return;
        }
        round.answers.entry(from).or_insert(answer);
        round.awaited.remove(&from);
        if round.awaited.is_empty()
            && let Some(all) = round.all.take()
        {
            // The question may be over.
            let _ = all.send(());
        }
    }

    /// Ends a question. Nodes that were waited for in vain are not waited for until they are heard
    /// again.
    pub fn finish(&mut self, number: u64, now: Instant) -> Option<Answers> {
        let Round { awaited, answers, .. } = self.open.remove(&number)?;
        for node in awaited {
            if let Some(node) = self.nodes.get_mut(&node) {
                node.is_silent = true;
            }
        }
        let hears_since = self.hears_since.filter(|_| answers.contains_key(&self.me));
        let is_settled = hears_since.is_some_and(|since| now.duration_since(since) >= SETTLE_TIME);
        let are_all = is_settled && self.members(now).all(|node| answers.contains_key(&node));
        Some(Answers { of_others: answers.into_values().flatten().collect(), are_all })
    }

    /// Forgets a question.
    pub fn forget(&mut self, number: u64) {
        self.open.remove(&number);
    }
}
