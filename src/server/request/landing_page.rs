//! The page that a person sees who opens the server's address in a browser: what this is, and what to
//! type into the app. It shows no secret and counts nothing.

use bytes::Bytes;

use crate::html::escape;

/// The page; `public_url` only has characters that stand for themselves in HTML or is escaped here.
pub(crate) fn render(public_url: Option<&str>, retention_days: u32) -> Bytes {
    let server = match public_url {
        Some(url) => format!("<code>{}</code>", escape(url)),
        None => "the address of this page".to_owned(),
    };
    format!(
        r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>Threema Safe backups</title>
<style>
:root {{ color-scheme: light dark }}
body {{ font: 1.05rem/1.6 system-ui, sans-serif; max-width: 38rem; margin: 3rem auto; padding: 0 1.2rem }}
h1 {{ font-size: 1.5rem; line-height: 1.25 }}
code {{ overflow-wrap: anywhere }}
dt {{ font-weight: 600; margin-top: .6rem }}
dd {{ margin: 0 }}
</style>
</head>
<body>
<main>
<h1>This server keeps Threema Safe backups</h1>
<p>It works: there is nothing more to see here. The Threema app on your phone talks to it.</p>
<p>To use it, open the app’s settings for <em>Threema Safe</em>, turn Safe on, open the expert
options and enter:</p>
<dl>
<dt>Server</dt><dd>{server}</dd>
<dt>User name and password</dt><dd>as your administrator gave them to you</dd>
</dl>
<p>The password of the backup itself is another one, which you choose. Backups are encrypted on the
phone; this server cannot read them. A backup is kept for {retention_days} days after the phone has
last renewed it.</p>
</main>
</body>
</html>
"#
    )
    .into()
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
    }
}
