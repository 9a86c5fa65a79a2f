//! Line icons, drawn here: one path each on a grid of 24.

use crate::app::view::{Element, element};

/// Which icon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Icon {
    /// A new conversation.
    Plus,
    /// Sends.
    ArrowUp,
    /// Goes to the newest text.
    ArrowDown,
    /// Stops.
    Square,
    /// Copies.
    Copy,
    /// It worked.
    Check,
    /// Closes, or it did not work.
    Cross,
    /// Once more.
    Again,
    /// The one before.
    Left,
    /// The one after.
    Right,
    /// Settings.
    Sliders,
    /// Light colours.
    Sun,
    /// Dark colours.
    Moon,
    /// Colours as the system has them.
    Screen,
    /// The engine.
    Chip,
    /// The list of conversations.
    Panel,
    /// Changes words.
    Pen,
    /// Deletes.
    Bin,
    /// Goes on.
    Onward,
    /// Another device.
    Devices,
}

impl Icon {
    fn path(self) -> &'static str {
        match self {
            Self::Plus => "M12 5v14M5 12h14",
            Self::ArrowUp => "M12 19V5M6 11l6-6 6 6",
            Self::ArrowDown => "M12 5v14M6 13l6 6 6-6",
            Self::Square => "M7 7h10v10H7z",
            Self::Copy => "M9 9h11v11H9zM5 15H4V4h11v1",
            Self::Check => "M5 13l4 4L19 7",
            Self::Cross => "M6 6l12 12M18 6L6 18",
            Self::Again => "M4 12a8 8 0 0 1 14-5.3L20 9M20 4v5h-5M20 12a8 8 0 0 1-14 5.3L4 15M4 20v-5h5",
            Self::Left => "M14 6l-6 6 6 6",
            Self::Right => "M10 6l6 6-6 6",
            Self::Sliders => {
                "M4 7h9M19 7h1M4 17h1M11 17h9M13 7a3 3 0 1 0 6 0 3 3 0 1 0-6 0M5 17a3 3 0 1 0 6 0 3 3 0 1 0-6 0"
            }
            Self::Sun => {
                "M8 12a4 4 0 1 0 8 0 4 4 0 1 0-8 0M12 3v1M12 20v1M3 12h1M20 12h1M5.6 5.6l.7.7M17.7 17.7l.7.7\
                 M18.4 5.6l-.7.7M6.3 17.7l-.7.7"
            }
            Self::Moon => "M20 14.5A8.5 8.5 0 1 1 9.5 4a7 7 0 0 0 10.5 10.5z",
            Self::Screen => "M4 5h16v11H4zM9 20h6M12 16v4",
            Self::Panel => "M4 5h16v14H4zM9 5v14",
            Self::Pen => "M4 20l1-4L16 5l3 3L8 19zM14 7l3 3",
            Self::Bin => "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13",
            Self::Onward => "M5 5l7 7-7 7M12 5l7 7-7 7",
            Self::Devices => "M13 18H4V5h14v4M15 11h6v9h-6zM3 21h7",
            Self::Chip => "M7 7h10v10H7zM10 3v4M14 3v4M10 17v4M14 17v4M3 10h4M3 14h4M17 10h4M17 14h4",
        }
    }
}

/// An icon; it has no name of its own, the button around it does.
pub fn glyph(icon: Icon) -> Element {
    drawing(element("path").with("d", icon.path()))
}

/// An icon that changes.
pub fn live_glyph(mut icon: impl FnMut() -> Icon + Send + 'static) -> Element {
    drawing(element("path").bind("d", move || icon().path()))
}

fn drawing(path: Element) -> Element {
    element("svg").class("icon").with("viewBox", "0 0 24 24").with("aria-hidden", "true").child(path)
}
