//! The HTML document around the page, written by the server only.
//!
//! Owns the head. What a visitor prefers is in attributes of `<html>`, so that the first paint has it without a script.

pub mod login;

use leptos::prelude::*;

use super::{
    page::{Loaded, Page},
    platform,
    preferences::Preferences,
};

/// The document that every page request gets.
pub fn shell(options: LeptosOptions) -> impl IntoView {
    let title = use_context::<Loaded>().unwrap_or_default().title();
    let scripts = view! {
        <AutoReload options=options.clone()/>
        <HydrationScripts options=options.clone()/>
    };
    document(platform::preferences(), &options, title, scripts.into_any(), view! { <Page/> }.into_any())
}

fn document(
    preferences: Preferences,
    options: &LeptosOptions,
    title: String,
    scripts: AnyView,
    body: AnyView,
) -> impl IntoView + use<> {
    let style_sheet = format!("/{}/{}.css", options.site_pkg_dir, options.output_name);
    view! {
        <!DOCTYPE html>
        <html
            lang=preferences.language.tag()
            data-theme=preferences.theme.name()
            data-chats=preferences.list.name()
        >
            <head>
                <meta charset="utf-8"/>
                <meta
                    name="viewport"
                    content="width=device-width, initial-scale=1, viewport-fit=cover, interactive-widget=resizes-content"
                />
                <meta name="color-scheme" content="light dark"/>
                <meta name="referrer" content="no-referrer"/>
                <meta name="format-detection" content="telephone=no"/>
                <link rel="icon" href="/icon.svg" type="image/svg+xml"/>
                <link rel="stylesheet" href=style_sheet/>
                {scripts}
                <title>{title}</title>
            </head>
            <body>{body}</body>
        </html>
    }
}
