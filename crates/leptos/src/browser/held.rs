//! The resources that a program must give up when it fails, because other tabs or the server wait
//! for them.
//!
//! A program that has panicked still runs: the browser goes on calling its timers and listeners. It
//! cannot clean up its views and signals any more, which may be locked for good. So each resource
//! has a function of its own, which calls only the browser.

use std::{
    cell::{Cell, RefCell},
    fmt,
    rc::{Rc, Weak},
};

thread_local! {
    static IS_OVER: Cell<bool> = const { Cell::new(false) };
    static ALL: RefCell<Vec<Weak<dyn Fn()>>> = const { RefCell::new(Vec::new()) };
}

/// A resource that is given up when this is dropped, or when the program is over.
pub struct Held(Rc<dyn Fn()>);

impl Held {
    /// Registers a resource. `give_up` may be called twice, and must not use signals.
    pub fn new(give_up: impl Fn() + 'static) -> Self {
        let give_up: Rc<dyn Fn()> = Rc::new(give_up);
        if is_over() {
            give_up();
        }
        ALL.with_borrow_mut(|all| {
            all.retain(|other| other.strong_count() > 0);
            all.push(Rc::downgrade(&give_up));
        });
        Self(give_up)
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").finish_non_exhaustive()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Gives up all resources. From then on the program opens no stream, joins no group of tabs, and
/// does nothing at regular intervals.
pub fn give_up_all() {
    IS_OVER.set(true);
    let all = ALL.with_borrow(Clone::clone);
    for give_up in all.iter().filter_map(Weak::upgrade) {
        give_up();
    }
}

/// Returns `true` after [`give_up_all`].
pub(crate) fn is_over() -> bool {
    IS_OVER.get()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_is_given_up_when_the_program_is_over_or_does_not_need_it() {
        let given_up = Rc::new(Cell::new(0));
        let hold = || {
            let given_up = Rc::clone(&given_up);
            Held::new(move || given_up.set(given_up.get() + 1))
        };
        drop(hold());
        assert_eq!(given_up.take(), 1);
        let _held = [hold(), hold()];
        give_up_all();
        assert_eq!(given_up.take(), 2, "the dropped one is not given up again");
        let _late = hold();
        assert_eq!(given_up.take(), 1, "nothing is held afterwards");
    }
}
