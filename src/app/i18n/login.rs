//! The words of the page that asks for the access token; the server alone writes it.

use crate::app::preferences::Language;

/// All of them in one language.
#[derive(Debug)]
pub struct LoginTexts {
    /// What the page is, in the window's title.
    pub heading: &'static str,
    /// What to do.
    pub invitation: &'static str,
    /// The field's name.
    pub token: &'static str,
    /// Goes in.
    pub enter: &'static str,
    /// That it was not the token.
    pub wrong: &'static str,
}

static CHINESE: LoginTexts = LoginTexts {
    heading: "登录",
    invitation: "这个服务器需要访问令牌，请向运行它的人索取。",
    token: "访问令牌",
    enter: "进入",
    wrong: "访问令牌不正确，请重新输入。",
};

static ENGLISH: LoginTexts = LoginTexts {
    heading: "Log in",
    invitation: "This server asks for an access token. Whoever runs it can give it to you.",
    token: "Access token",
    enter: "Go in",
    wrong: "That is not the access token. Please try again.",
};

impl LoginTexts {
    /// The words of a language.
    pub fn of(language: Language) -> &'static Self {
        match language {
            Language::Chinese => &CHINESE,
            Language::English => &ENGLISH,
        }
    }
}
