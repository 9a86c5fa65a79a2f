//! The page that asks for the access token: a form, and no script.
//!
//! Knows neither the token nor what it opens.

use leptos::prelude::*;

use super::document;
use crate::app::{i18n::login::LoginTexts, platform};

/// What is known of whoever is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// For the first time.
    First,
    /// Again: what was given is not the token.
    Again,
}

/// The document with the form. Who answers it rightly is led on to `to`, one of the page's own addresses.
pub fn login(options: &LeptosOptions, title: &str, to: String, asked: Asked) -> impl IntoView + use<> {
    let preferences = platform::preferences();
    let texts = LoginTexts::of(preferences.language);
    let is_again = asked == Asked::Again;
    let wrong = is_again.then(|| view! { <p id="wrong" class="login-wrong" role="alert">{texts.wrong}</p> });
    let form = view! {
        <main class="login">
            <form method="post" action="/login">
                <h1>{title.to_owned()}</h1>
                <p>{texts.invitation}</p>
                <input type="hidden" name="to" value=to/>
                <label for="access_token">{texts.token}</label>
                <input
                    id="access_token"
                    name="access_token"
                    type="password"
                    autocomplete="current-password"
                    spellcheck="false"
                    required
                    autofocus
                    aria-invalid=is_again.then_some("true")
                    aria-describedby=is_again.then_some("wrong")
                />
                {wrong}
                <button type="submit">{texts.enter}</button>
            </form>
        </main>
    };
    document(preferences, options, format!("{} · {title}", texts.heading), ().into_any(), form.into_any())
}
