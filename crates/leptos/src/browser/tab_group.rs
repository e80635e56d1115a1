//! A group of tabs that share: a lock, which one of them holds (W3C Web Locks), and a channel
//! between them (WHATWG HTML 9.5, `BroadcastChannel`).

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

use super::Held;

// web-sys has the lock manager behind a flag that every dependent crate would have to set.
#[wasm_bindgen]
extern "C" {
    type LockManager;

    #[wasm_bindgen(method)]
    fn request(this: &LockManager, name: &str, options: &Object, granted: &Function) -> Promise;

    #[wasm_bindgen(method)]
    fn query(this: &LockManager) -> Promise;
}

/// An event in a tab's group.
pub(crate) enum GroupEvent {
    /// This tab has got the lock.
    Granted,
    /// Another tab has taken the lock from this tab.
    Stolen,
    /// The browser refuses to give locks.
    Refused,
    /// Another tab has posted a list of strings.
    Posted(Vec<String>),
}

/// A tab's membership in a group. A member holds the group's lock or waits for it. Dropping the
/// membership passes the lock on to the next tab.
pub(crate) struct TabGroup {
    inner: Rc<GroupInner>,
    _held: Held,
    _on_message: Closure<dyn Fn(MessageEvent)>,
}

struct GroupInner {
    name: String,
    channel: BroadcastChannel,
    locks: LockManager,
    on_event: Box<dyn Fn(GroupEvent)>,
    /// The current request for the lock.
    lock: RefCell<Rc<LockRequest>>,
    has_left: Cell<bool>,
}

/// A request for the lock, and the lock once it is granted.
#[derive(Default)]
struct LockRequest {
    /// Withdraws the request. A request that steals cannot be withdrawn.
    abort: Option<AbortController>,
    /// Releases the lock.
    release: RefCell<Option<Function>>,
    is_given_up: Cell<bool>,
}

impl LockRequest {
    fn give_up(&self) {
        self.is_given_up.set(true);
        if let Some(release) = self.release.take() {
            // A function that resolves a promise does not throw.
            let _ = release.call0(&JsValue::UNDEFINED);
        } else if let Some(abort) = &self.abort {
            abort.abort();
        }
    }
}

impl TabGroup {
    /// Joins the group of that name: requests its lock, and listens to its channel. Returns `None`
    /// if the browser has no locks or channels. It has them only in secure contexts (HTTPS or
    /// localhost).
    pub(crate) fn join(name: &str, on_event: impl Fn(GroupEvent) + 'static) -> Option<Self> {
        let locks = locks()?;
        let channel = BroadcastChannel::new(name).ok()?;
        let lock = RefCell::default();
        let (name, on_event) = (name.to_owned(), Box::new(on_event));
        let inner = Rc::new(GroupInner {
            name,
            channel,
            locks,
            on_event,
            lock,
            has_left: Cell::new(false),
        });
        let weak = Rc::downgrade(&inner);
        let on_message = Closure::<dyn Fn(_)>::new(move |message: MessageEvent| {
            if let (Some(inner), Some(fields)) = (weak.upgrade(), message.data().dyn_ref::<Array>())
            {
                // A post that is not a list of strings is not from a tab of this version.
                let fields: Option<Vec<_>> = fields.iter().map(|field| field.as_string()).collect();
                if let Some(fields) = fields {
                    (inner.on_event)(GroupEvent::Posted(fields));
                }
            }
        });
        inner.channel.set_onmessage(Some(on_message.as_ref().unchecked_ref()));
        inner.request(false);
        let left = Rc::clone(&inner);
        Some(Self { inner, _held: Held::new(move || left.leave()), _on_message: on_message })
    }

    /// Takes the lock from the tab that holds it.
    pub(crate) fn steal(&self) {
        self.inner.request(true);
    }

    /// Posts a list of strings to the other tabs of the group.
    pub(crate) fn post(&self, fields: &[String]) {
        let fields: Array = fields.iter().map(JsValue::from).collect();
        // Fails only on a closed channel, and dropping this closes it.
        let _ = self.inner.channel.post_message(&fields);
    }
}

impl GroupInner {
    /// Leaves the group, for good.
    fn leave(&self) {
        self.has_left.set(true);
        self.channel.set_onmessage(None);
        self.channel.close();
        self.lock.borrow().give_up();
    }

    /// Requests the lock, and withdraws or releases the request before it.
    fn request(self: &Rc<Self>, is_to_steal: bool) {
        let options = Object::new();
        let abort = if is_to_steal { None } else { AbortController::new().ok() };
        // A plain object takes every property.
        let _ = match &abort {
            Some(abort) => Reflect::set(&options, &"signal".into(), &abort.signal()),
            None => Reflect::set(&options, &"steal".into(), &is_to_steal.into()),
        };
        let lock = Rc::new(LockRequest { abort, ..LockRequest::default() });
        self.lock.replace(Rc::clone(&lock)).give_up();

        let (inner, held) = (Rc::clone(self), Rc::clone(&lock));
        let granted = Closure::once(move || {
            // The lock is released when this promise is resolved.
            let held_until = Promise::new(&mut |release, _| {
                if held.is_given_up.get() {
                    let _ = release.call0(&JsValue::UNDEFINED);
                } else {
                    held.release.replace(Some(release));
                }
            });
            if !held.is_given_up.get() {
                (inner.on_event)(GroupEvent::Granted);
            }
            held_until
        });
        let request = self.locks.request(&self.name, &options, granted.as_ref().unchecked_ref());
        let inner = Rc::clone(self);
        spawn_local(async move {
            let result = JsFuture::from(request).await;
            drop(granted);
            if result.is_ok() || lock.is_given_up.get() || inner.has_left.get() {
                return;
            }
            let name = result.err().and_then(|error| Reflect::get(&error, &"name".into()).ok());
            // This tab has aborted nothing, so the lock was stolen.
            let is_stolen = name.and_then(|name| name.as_string()).as_deref() == Some("AbortError");
            (inner.on_event)(if is_stolen { GroupEvent::Stolen } else { GroupEvent::Refused });
        });
    }
}

/// Counts the tabs in the group of that name: those that hold the lock, and those that wait for it.
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

/// Returns the browser's lock manager, if it has one.
fn locks() -> Option<LockManager> {
    let locks = Reflect::get(&window().navigator(), &"locks".into()).ok()?;
    locks.is_object().then(|| locks.unchecked_into())
}
