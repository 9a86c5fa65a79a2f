//! Language, theme and the list at the side: what a visitor prefers before anything is drawn.
//!
//! All live in cookies, so that the server draws the page as the browser will keep it. Knows no headers' types and no
//! DOM: `platform` reads those.

/// A language of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// Simplified Chinese.
    Chinese,
    /// English.
    English,
}

impl Language {
    /// The language's tag, as in `<html lang>`.
    #[must_use]
    pub fn tag(self) -> &'static str {
        match self {
            Self::Chinese => "zh-CN",
            Self::English => "en",
        }
    }

    /// The language of a tag such as `zh`, `zh-Hant-TW` or `en-GB`.
    #[must_use]
    pub fn from_tag(tag: &str) -> Option<Self> {
        let primary = tag.trim().split('-').next().unwrap_or_default();
        if primary.eq_ignore_ascii_case("zh") {
            Some(Self::Chinese)
        } else if primary.eq_ignore_ascii_case("en") {
            Some(Self::English)
        } else {
            None
        }
    }

    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Chinese => Self::English,
            Self::English => Self::Chinese,
        }
    }

    /// The best of an `Accept-Language` header: Chinese where it says nothing, English where it names other languages
    /// only.
    fn accepted(header: &str) -> Self {
        let mut best: Option<(f32, Self)> = None;
        for part in header.split(',') {
            let mut fields = part.split(';');
            let Some(language) = fields.next().and_then(Self::from_tag) else { continue };
            let quality = fields.find_map(|field| field.trim().strip_prefix("q=")?.parse::<f32>().ok()).unwrap_or(1.0);
            if best.is_none_or(|(other, _)| quality > other) {
                best = Some((quality, language));
            }
        }
        match best {
            Some((_, language)) => language,
            None if header.trim().is_empty() || header.trim() == "*" => Self::Chinese,
            None => Self::English,
        }
    }
}

/// Which colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Theme {
    /// As the operating system says.
    System,
    /// Light.
    Light,
    /// Dark.
    Dark,
}

impl Theme {
    /// As in the cookie and in `<html data-theme>`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Light => "light",
            Self::Dark => "dark",
        }
    }

    /// The theme of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::System, Self::Light, Self::Dark].into_iter().find(|theme| theme.name() == name)
    }

    /// The next one round.
    #[must_use]
    pub fn next(self) -> Self {
        match self {
            Self::System => Self::Light,
            Self::Light => Self::Dark,
            Self::Dark => Self::System,
        }
    }
}

/// The list of conversations at the side, where the window is wide enough for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dock {
    /// It is there.
    Open,
    /// It is put away.
    Closed,
}

impl Dock {
    /// As in the cookie and in `<html data-chats>`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
        }
    }

    /// The one of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Open, Self::Closed].into_iter().find(|dock| dock.name() == name)
    }

    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Open => Self::Closed,
            Self::Closed => Self::Open,
        }
    }
}

/// Name of the cookie that keeps a chosen [`Language`].
pub const LANGUAGE_COOKIE: &str = "language";

/// Name of the cookie that keeps a chosen [`Theme`].
pub const THEME_COOKIE: &str = "theme";

/// Name of the cookie that keeps a chosen [`Dock`].
pub const DOCK_COOKIE: &str = "chats";

/// What a visitor prefers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preferences {
    /// Language of the interface.
    pub language: Language,
    /// Colours.
    pub theme: Theme,
    /// The list of conversations.
    pub list: Dock,
}

impl Preferences {
    /// From the `Cookie` and `Accept-Language` headers, either empty where absent; a cookie wins.
    #[must_use]
    pub fn from_headers(cookies: &str, accept_language: &str) -> Self {
        Self {
            language: cookie(cookies, LANGUAGE_COOKIE)
                .and_then(Language::from_tag)
                .unwrap_or_else(|| Language::accepted(accept_language)),
            theme: cookie(cookies, THEME_COOKIE).and_then(Theme::from_name).unwrap_or(Theme::System),
            list: cookie(cookies, DOCK_COOKIE).and_then(Dock::from_name).unwrap_or(Dock::Open),
        }
    }
}

fn cookie<'a>(cookies: &'a str, name: &str) -> Option<&'a str> {
    cookies.split(';').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        (key.trim() == name).then_some(value.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_language_is_the_best_accepted_one() {
        for (header, language) in [
            ("", Language::Chinese),
            ("*", Language::Chinese),
            ("zh-CN,zh;q=0.9,en;q=0.8", Language::Chinese),
            ("en-US,en;q=0.9,zh;q=0.8", Language::English),
            ("fr, en;q=0.2, zh-Hant-TW;q=0.7", Language::Chinese),
            ("ja,fr;q=0.5", Language::English),
        ] {
            assert_eq!(Preferences::from_headers("", header).language, language, "{header:?}");
        }
    }

    #[test]
    fn a_cookie_wins_and_nonsense_in_it_is_ignored() {
        let chosen = Preferences::from_headers("a=b; language=en; theme=dark; chats=closed", "zh");
        assert_eq!(chosen, Preferences { language: Language::English, theme: Theme::Dark, list: Dock::Closed });
        let nonsense = Preferences::from_headers("language=<script>; theme=pink; chats=1", "zh");
        assert_eq!(nonsense, Preferences { language: Language::Chinese, theme: Theme::System, list: Dock::Open });
    }
}
