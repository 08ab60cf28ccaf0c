//! HTML: escaping, and pages made from templates with named placeholders.

/// Escapes text for HTML, in content and in quoted attributes.
#[must_use]
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}

/// The value of a placeholder.
#[derive(Debug, Clone, Copy)]
pub enum Value<'a> {
    /// Text, which is escaped.
    Text(&'a str),
    /// HTML or CSS of this program, which is inserted as it is.
    Markup(&'a str),
}

/// Replaces each `{{name}}` of a template by its value. Values are not searched for placeholders.
///
/// # Panics
/// When a placeholder has no value or no end: templates are part of the program, and tests render
/// each of them.
#[must_use]
pub fn fill(template: &str, values: &[(&str, Value<'_>)]) -> String {
    let mut parts = template.split("{{");
    let mut page = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (name, rest) = part.split_once("}}").expect("a placeholder ends");
        let (_, value) = values
            .iter()
            .find(|(placeholder, _)| *placeholder == name)
            .expect("a placeholder has a value");
        match value {
            Value::Text(text) => page.push_str(&escape(text)),
            Value::Markup(markup) => page.push_str(markup),
        }
        page.push_str(rest);
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped_and_values_are_not_searched() {
        let values = [
            ("text", Value::Text("<a href=\"{{markup}}\">'&")),
            ("markup", Value::Markup("<b>{{text}}</b>")),
        ];
        assert_eq!(
            fill("1 {{text}} 2 {{markup}}{{markup}}", &values),
            "1 &lt;a href=&quot;{{markup}}&quot;&gt;&#39;&amp; 2 <b>{{text}}</b><b>{{text}}</b>"
        );
    }

    #[test]
    #[should_panic(expected = "a placeholder has a value")]
    fn a_placeholder_without_a_value_is_a_panic() {
        drop(fill("{{name}}", &[]));
    }
}
