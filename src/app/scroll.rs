//! Whether the transcript follows its end while text arrives.
//!
//! Decided by position alone: no timers, and no guessing which device moved it. Knows no DOM.

/// Upward movement that ends the following, in pixels.
const LEAVE_PX: i32 = 3;

/// Distance from the end within which moving down resumes the following, in pixels.
const REJOIN_PX: i32 = 60;

/// Where a scroll container stands, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// How far it is scrolled.
    pub top: i32,
    /// Height that is seen.
    pub seen: i32,
    /// Height of the content.
    pub content: i32,
}

impl Position {
    /// How much content is below what is seen.
    #[must_use]
    pub fn below(self) -> i32 {
        (self.content - self.seen - self.top).max(0)
    }
}

/// Follows the end until somebody moves up, and again once they come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Follow {
    following: bool,
    /// The furthest down it has been since it began to follow; where it is, otherwise.
    top: i32,
}

impl Default for Follow {
    fn default() -> Self {
        Self { following: true, top: 0 }
    }
}

impl Follow {
    /// Whether the end is followed.
    #[must_use]
    pub fn is_following(self) -> bool {
        self.following
    }

    /// Something moved: a person, or what we wrote ourselves.
    pub fn moved(&mut self, position: Position) {
        let top = position.top;
        if !self.following {
            self.following = top > self.top && position.below() <= REJOIN_PX;
            self.top = top;
        } else if position.below() < LEAVE_PX {
            // At the end; content that shrank may have pushed it up.
            self.top = top;
        } else if top <= self.top - LEAVE_PX {
            self.following = false;
            self.top = top;
        } else {
            self.top = self.top.max(top);
        }
    }

    /// Follows from now on.
    pub fn rejoin(&mut self) {
        self.following = true;
    }

    /// Stays where it is, such as while text is being selected.
    pub fn leave(&mut self) {
        self.following = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(top: i32, content: i32) -> Position {
        Position { top, seen: 500, content }
    }

    fn followed_to(top: i32) -> Follow {
        let mut follow = Follow::default();
        follow.moved(at(top, top + 500));
        follow
    }

    #[test]
    fn growing_content_does_not_end_the_following() {
        let mut follow = followed_to(1000);
        follow.moved(at(1000, 1900));
        assert!(follow.is_following());
    }

    #[test]
    fn three_pixels_up_end_it_however_slowly() {
        let mut follow = followed_to(1000);
        for top in [999, 998] {
            follow.moved(at(top, 1600));
            assert!(follow.is_following());
        }
        follow.moved(at(997, 1600));
        assert!(!follow.is_following());
    }

    #[test]
    fn shrinking_content_does_not_end_it() {
        let mut follow = followed_to(1000);
        follow.moved(at(700, 1200));
        assert!(follow.is_following());
        follow.moved(at(697, 1200));
        assert!(!follow.is_following());
    }

    #[test]
    fn it_resumes_only_by_coming_down_close_to_the_end() {
        let mut follow = followed_to(1000);
        follow.moved(at(950, 1500));
        assert!(!follow.is_following());
        // Close to the end, but still going up.
        follow.moved(at(945, 1500));
        assert!(!follow.is_following());
        follow.moved(at(600, 1500));
        follow.moved(at(939, 1500));
        assert!(!follow.is_following());
        follow.moved(at(940, 1500));
        assert!(follow.is_following());
    }
}
