//! The landing page, for users who open the server's address in a browser: what the server is, and
//! what to type into the app. It shows no secrets and no numbers of backups.

use bytes::Bytes;

use crate::html::{Value, escape, fill};

const TEMPLATE: &str = include_str!("landing_page.html");

/// Renders the page as HTML. Without `public_url`, it refers to its own address.
pub(crate) fn render(public_url: Option<&str>, retention_days: u32) -> Bytes {
    let server = match public_url {
        Some(url) => format!("<code>{}</code>", escape(url)),
        None => "the address of this page".to_owned(),
    };
    let values = [
        ("server", Value::Markup(&server)),
        ("retention_days", Value::Text(&retention_days.to_string())),
    ];
    fill(TEMPLATE, &values).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_shows_the_address_as_text() {
        let page = render(Some("https://a/<b>&\"/"), 180);
        let page = str::from_utf8(&page).unwrap();
        assert!(
            page.contains("<code>https://a/&lt;b&gt;&amp;&quot;/</code>"),
            "{page}"
        );
        assert!(page.contains("180 days"));
        assert!(!page.contains("{{"));
    }
}
