//! Tabs that share: a lock, which one of them holds (W3C Web Locks API), and a channel between them
//! (WHATWG HTML 9.5, `BroadcastChannel`).

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use js_sys::{Array, Function, Object, Promise, Reflect};
use leptos::prelude::window;
use leptos::task::spawn_local;
use wasm_bindgen::{JsCast as _, JsValue, closure::Closure, prelude::wasm_bindgen};
use wasm_bindgen_futures::JsFuture;
use web_sys::{AbortController, BroadcastChannel, MessageEvent};

// web-sys has it behind a flag that every crate would have to set.
#[wasm_bindgen]
extern "C" {
    type LockManager;

    #[wasm_bindgen(method)]
    fn request(this: &LockManager, name: &str, options: &Object, granted: &Function) -> Promise;

    #[wasm_bindgen(method)]
    fn query(this: &LockManager) -> Promise;
}

/// What a tab hears as one of its group.
pub(crate) enum GroupNews {
    /// It has the lock.
    Granted,
    /// It had the lock, and another tab has taken it.
    Stolen,
    /// The browser refuses to give locks.
    Unshared,
    /// Another tab has said that.
    Posted(String),
}

/// A tab's place in a group, in which it has the lock or waits for it. Dropping it gives the lock to the
/// next.
pub(crate) struct Group {
    inner: Rc<Inner>,
    _on_message: Closure<dyn Fn(MessageEvent)>,
}

struct Inner {
    name: String,
    channel: BroadcastChannel,
    locks: LockManager,
    tell: Box<dyn Fn(GroupNews)>,
    /// The lock, or the request for it.
    lock: RefCell<Rc<Lock>>,
    has_left: Cell<bool>,
}

/// A request for the lock, and then the lock.
#[derive(Default)]
struct Lock {
    /// Takes the request back; one to steal cannot be.
    abort: Option<AbortController>,
    /// Gives the lock back.
    release: RefCell<Option<Function>>,
    is_given_up: Cell<bool>,
}

impl Lock {
    fn give_up(&self) {
        self.is_given_up.set(true);
        if let Some(release) = self.release.take() {
            // What resolves a promise does not throw.
            let _ = release.call0(&JsValue::UNDEFINED);
        } else if let Some(abort) = &self.abort {
            abort.abort();
        }
    }
}

impl Group {
    /// Enters the group of that name: asks for its lock, and listens. None if the browser has no locks
    /// or channels, which it has only over HTTPS and from this machine.
    pub(crate) fn join(name: &str, tell: impl Fn(GroupNews) + 'static) -> Option<Self> {
        let locks = locks()?;
        let channel = BroadcastChannel::new(name).ok()?;
        let lock = RefCell::default();
        let (name, tell) = (name.to_owned(), Box::new(tell));
        let inner = Rc::new(Inner { name, channel, locks, tell, lock, has_left: Cell::new(false) });
        let weak = Rc::downgrade(&inner);
        let on_message = Closure::<dyn Fn(_)>::new(move |message: MessageEvent| {
            if let (Some(inner), Some(text)) = (weak.upgrade(), message.data().as_string()) {
                (inner.tell)(GroupNews::Posted(text));
            }
        });
        inner.channel.set_onmessage(Some(on_message.as_ref().unchecked_ref()));
        inner.request(false);
        Some(Self { inner, _on_message: on_message })
    }

    /// Takes the lock from whoever has it.
    pub(crate) fn steal(&self) {
        self.inner.request(true);
    }

    /// Says that to the other tabs of the group.
    pub(crate) fn post(&self, text: &str) {
        // Fails once the channel is closed, which it is when this is dropped.
        let _ = self.inner.channel.post_message(&text.into());
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.inner.has_left.set(true);
        self.inner.channel.set_onmessage(None);
        self.inner.channel.close();
        self.inner.lock.borrow().give_up();
    }
}

impl Inner {
    /// Asks for the lock, in place of what was asked for before.
    fn request(self: &Rc<Self>, is_to_steal: bool) {
        let options = Object::new();
        let abort = if is_to_steal { None } else { AbortController::new().ok() };
        // A plain object takes every property.
        let _ = match &abort {
            Some(abort) => Reflect::set(&options, &"signal".into(), &abort.signal()),
            None => Reflect::set(&options, &"steal".into(), &is_to_steal.into()),
        };
        let lock = Rc::new(Lock { abort, ..Lock::default() });
        self.lock.replace(Rc::clone(&lock)).give_up();

        let (inner, held) = (Rc::clone(self), Rc::clone(&lock));
        let granted = Closure::once(move || {
            // The browser takes the lock back when this is resolved.
            let kept = Promise::new(&mut |release, _| {
                if held.is_given_up.get() {
                    let _ = release.call0(&JsValue::UNDEFINED);
                } else {
                    held.release.replace(Some(release));
                }
            });
            if !held.is_given_up.get() {
                (inner.tell)(GroupNews::Granted);
            }
            kept
        });
        let answer = self.locks.request(&self.name, &options, granted.as_ref().unchecked_ref());
        let inner = Rc::clone(self);
        spawn_local(async move {
            let answer = JsFuture::from(answer).await;
            drop(granted);
            if answer.is_ok() || lock.is_given_up.get() || inner.has_left.get() {
                return;
            }
            let name = answer.err().and_then(|error| Reflect::get(&error, &"name".into()).ok());
            // We have aborted nothing, so the lock was stolen.
            let is_stolen = name.and_then(|name| name.as_string()).as_deref() == Some("AbortError");
            (inner.tell)(if is_stolen { GroupNews::Stolen } else { GroupNews::Unshared });
        });
    }
}

/// How many tabs are in the group of that name: those that have the lock, and those that wait for it.
pub(crate) async fn count_tabs(name: &str) -> Option<usize> {
    let snapshot = JsFuture::from(locks()?.query()).await.ok()?;
    let count = |kind: &str| {
        let locks = Reflect::get(&snapshot, &kind.into()).map(|locks| Array::from(&locks));
        let is_ours = |lock: &JsValue| {
            Reflect::get(lock, &"name".into())
                .is_ok_and(|found| found.as_string().as_deref() == Some(name))
        };
        locks.map_or(0, |locks| locks.iter().filter(is_ours).count())
    };
    Some(count("held") + count("pending"))
}

/// The browser's locks, if it has any.
fn locks() -> Option<LockManager> {
    let locks = Reflect::get(&window().navigator(), &"locks".into()).ok()?;
    locks.is_object().then(|| locks.unchecked_into())
}
