//! Values that change, and values worked out of them, each of one type underneath.
//!
//! Leptos' signals are made anew for each type of value: the wasm carries reading, writing, telling and disposing once
//! more for every one. These hold any value in one type of signal; effects and drawing work as with Leptos' own.
//! Knows nothing of what is held. **Architecture Invariant:** a state holds the same type from its making on.

use std::{any::Any, marker::PhantomData};

use leptos::prelude::*;

/// A value that can be changed; whoever read it, and was tracked, is told.
pub struct State<T> {
    signal: RwSignal<Held>,
    holds: PhantomData<fn(T) -> T>,
}

/// The same where whoever has it keeps it, whatever becomes of the owner that it was made for.
pub struct Shared<T> {
    signal: ArcRwSignal<Held>,
    holds: PhantomData<fn(T) -> T>,
}

/// A value worked out of others, which tells of itself only when it has changed.
pub struct Derived<T> {
    memo: Memo<Worked>,
    holds: PhantomData<fn(T) -> T>,
}

type Held = Box<dyn Any + Send + Sync>;

impl<T> Clone for State<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for State<T> {}

impl<T: Send + Sync + 'static> State<T> {
    /// A state with this value at first.
    #[must_use]
    pub fn new(value: T) -> Self {
        Self { signal: RwSignal::new(Box::new(value)), holds: PhantomData }
    }

    /// Reads it.
    pub fn with<U>(self, read: impl FnOnce(&T) -> U) -> U {
        self.track();
        self.with_untracked(read)
    }

    /// Reads it, and is not told of changes.
    pub fn with_untracked<U>(self, read: impl FnOnce(&T) -> U) -> U {
        let held = held(self.signal).expect("invariant: a state is read only while its owner is there");
        read(open(&**held))
    }

    /// Is told of changes.
    pub fn track(self) {
        self.signal.track();
    }

    /// Changes it. Nothing happens where its owner is gone.
    pub fn update(self, change: impl FnOnce(&mut T)) {
        if let Some(mut held) = self.signal.try_write() {
            change(held.downcast_mut().expect(SAME));
        }
    }

    /// Changes it to this. Nothing happens where its owner is gone.
    pub fn set(self, value: T) {
        self.update(|held| *held = value);
    }
}

impl<T: Clone + Send + Sync + 'static> State<T> {
    /// The value.
    #[must_use]
    pub fn get(self) -> T {
        self.with(T::clone)
    }

    /// The value, without being told of changes.
    #[must_use]
    pub fn get_untracked(self) -> T {
        self.with_untracked(T::clone)
    }

    /// The value, without being told of changes; `None` where its owner is gone.
    #[must_use]
    pub fn try_get_untracked(self) -> Option<T> {
        held(self.signal).map(|held| open::<T>(&**held).clone())
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self { signal: self.signal.clone(), holds: PhantomData }
    }
}

impl<T: Send + Sync + 'static> Shared<T> {
    /// A state with this value at first.
    #[must_use]
    pub fn new(value: T) -> Self {
        Self { signal: ArcRwSignal::new(Box::new(value)), holds: PhantomData }
    }

    /// Reads it.
    pub fn with<U>(&self, read: impl FnOnce(&T) -> U) -> U {
        self.track();
        self.with_untracked(read)
    }

    /// Reads it, and is not told of changes.
    pub fn with_untracked<U>(&self, read: impl FnOnce(&T) -> U) -> U {
        read(open(&**self.signal.read_untracked()))
    }

    /// Is told of changes.
    pub fn track(&self) {
        self.signal.track();
    }

    /// Changes it.
    pub fn update(&self, change: impl FnOnce(&mut T)) {
        change(self.signal.write().downcast_mut().expect(SAME));
    }
}

impl<T> Clone for Derived<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Derived<T> {}

/// A value worked out of others.
pub fn memo<T: PartialEq + Send + Sync + 'static>(value: impl Fn() -> T + Send + Sync + 'static) -> Derived<T> {
    Derived { memo: boxed_memo(Box::new(move || Worked(Box::new(value())))), holds: PhantomData }
}

/// Stands apart, since inside a generic function each closure is a type of its own.
fn boxed_memo(work: Box<dyn Fn() -> Worked + Send + Sync>) -> Memo<Worked> {
    Memo::new(move |_| work())
}

impl<T: Send + Sync + 'static> Derived<T> {
    /// Reads it.
    pub fn with<U>(self, read: impl FnOnce(&T) -> U) -> U {
        self.memo.track();
        self.with_untracked(read)
    }

    /// Reads it, and is not told of changes.
    pub fn with_untracked<U>(self, read: impl FnOnce(&T) -> U) -> U {
        let worked = self.memo.read_untracked();
        read(open(&*worked.0))
    }
}

impl<T: Clone + Send + Sync + 'static> Derived<T> {
    /// The value.
    #[must_use]
    pub fn get(self) -> T {
        self.with(T::clone)
    }

    /// The value, without being told of changes.
    #[must_use]
    pub fn get_untracked(self) -> T {
        self.with_untracked(T::clone)
    }
}

/// A value that was worked out.
struct Worked(Box<dyn Comparable>);

/// Any value that can be compared with another one of its type.
trait Comparable: Any + Send + Sync {
    fn equals(&self, other: &dyn Any) -> bool;
}

impl<T: PartialEq + Send + Sync + 'static> Comparable for T {
    fn equals(&self, other: &dyn Any) -> bool {
        other.downcast_ref() == Some(self)
    }
}

impl PartialEq for Worked {
    fn eq(&self, other: &Self) -> bool {
        self.0.equals(&*other.0)
    }
}

const SAME: &str = "invariant: a state holds the same type from its making on";

#[inline(never)]
fn held(signal: RwSignal<Held>) -> Option<<RwSignal<Held> as ReadUntracked>::Value> {
    signal.try_read_untracked()
}

fn open<T: 'static>(held: &dyn Any) -> &T {
    held.downcast_ref().expect(SAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_what_it_was_set_to_and_a_derived_value_follows() {
        let owner = Owner::new();
        owner.with(|| {
            let (number, word) = (State::new(2), State::new("two".to_owned()));
            let both = memo(move || word.with(|word| format!("{word} {}", number.get())));
            assert_eq!(both.get_untracked(), "two 2");
            number.update(|number| *number += 1);
            word.set("three".to_owned());
            assert_eq!(both.get_untracked(), "three 3");
        });
    }

    #[test]
    fn a_state_whose_owner_is_gone_is_left_alone() {
        let owner = Owner::new();
        let state = owner.with(|| State::new(1));
        assert_eq!(state.try_get_untracked(), Some(1));
        owner.cleanup();
        state.set(2);
        assert_eq!(state.try_get_untracked(), None);
    }
}
