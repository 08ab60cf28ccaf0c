//! The `If` header of WebDAV (RFC 4918 §10.4): parser and evaluation.
//!
//! There are no locks, so every state token is one that no resource has. dav-server would panic on
//! some malformed headers, ignore others, and compare the ETag of every resource tag with the one
//! resource of the request.

use http::{HeaderMap, HeaderName};

use crate::server::request::reply::Reject;

/// The name of the header.
pub(super) const IF: HeaderName = HeaderName::from_static("if");

/// A parsed `If` header: it holds if one of its lists holds.
#[derive(Debug)]
pub(super) struct IfHeader<'a>(Vec<List<'a>>);

/// Conditions that all have to hold, on one resource.
#[derive(Debug)]
struct List<'a> {
    /// The resource tag; without one, the list is about the resource of the request.
    tag: Option<&'a str>,
    conditions: Vec<Condition<'a>>,
}

#[derive(Debug)]
struct Condition<'a> {
    is_negated: bool,
    /// The entity tag, with its quotation marks; `None` for a state token.
    etag: Option<&'a str>,
}

/// What a resource tag names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tagged {
    /// The resource of the request.
    Target,
    /// Another backup, or one under another host name. It is not looked up, because that would be a
    /// guess of its id that no limit counts, so no list with its ETag holds.
    Unknown,
    /// A resource without ETag, or none of this server.
    WithoutEtag,
}

impl<'a> IfHeader<'a> {
    /// Parses the header of a request, if it has one.
    ///
    /// # Errors
    /// [`Reject::BadCondition`] if it is malformed, also if there are several: it is no list of
    /// elements that lines could continue.
    pub(super) fn parse(headers: &'a HeaderMap) -> Result<Option<Self>, Reject> {
        let mut lines = headers.get_all(IF).iter();
        match (lines.next(), lines.next()) {
            (None, _) => Ok(None),
            (Some(line), None) => line
                .to_str()
                .ok()
                .and_then(lists)
                .map(|lists| Some(Self(lists)))
                .ok_or(Reject::BadCondition),
            (Some(_), Some(_)) => Err(Reject::BadCondition),
        }
    }

    /// Whether a list mentions an ETag.
    pub(super) fn has_etag(&self) -> bool {
        let mut conditions = self.0.iter().flat_map(|list| &list.conditions);
        conditions.any(|condition| condition.etag.is_some())
    }

    /// Whether the header holds. `etag` is the one of the resource of the request, with its
    /// quotation marks, `None` if it has none or does not exist; `resource` resolves resource tags.
    pub(super) fn holds(&self, etag: Option<&str>, resource: impl Fn(&str) -> Tagged) -> bool {
        self.0.iter().any(|list| {
            let tagged = list.tag.map_or(Tagged::Target, &resource);
            let actual = etag.filter(|_| tagged == Tagged::Target);
            list.conditions.iter().all(|condition| {
                let Some(expected) = condition.etag else {
                    return condition.is_negated;
                };
                // A weak tag equals none (RFC 9110 §8.8.3.2); this server's are strong.
                let matches = actual == Some(expected);
                tagged != Tagged::Unknown && matches != condition.is_negated
            })
        })
    }
}

/// Parses the value: lists without resource tags, or lists after resource tags.
fn lists(value: &str) -> Option<Vec<List<'_>>> {
    let mut lists = Vec::new();
    let mut tag = None;
    let mut rest = trim(value);
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('<') {
            let (name, after) = after.split_once('>')?;
            rest = trim(after);
            let is_reference = name.starts_with('/') || is_absolute_uri(name);
            let is_mixed = tag.is_none() && !lists.is_empty();
            if !is_reference || !is_visible(name) || is_mixed || !rest.starts_with('(') {
                return None;
            }
            tag = Some(name);
        }
        let (conditions, after) = list(rest)?;
        lists.push(List { tag, conditions });
        rest = trim(after);
    }
    Some(lists).filter(|lists| !lists.is_empty())
}

/// Parses one list, and returns what follows it.
fn list(text: &str) -> Option<(Vec<Condition<'_>>, &str)> {
    let mut conditions = Vec::new();
    let mut rest = trim(text.strip_prefix('(')?);
    loop {
        if let Some(after) = rest.strip_prefix(')') {
            return (!conditions.is_empty()).then_some((conditions, after));
        }
        let word = rest.split_at_checked(3);
        let negated = word.filter(|(word, _)| word.eq_ignore_ascii_case("not"));
        rest = negated.map_or(rest, |(_, after)| trim(after));
        let is_negated = negated.is_some();
        let etag;
        (etag, rest) = if let Some(after) = rest.strip_prefix('<') {
            let (token, after) = after.split_once('>')?;
            if !is_absolute_uri(token) || !is_visible(token) {
                return None;
            }
            (None, after)
        } else {
            let (etag, after) = entity_tag(trim(rest.strip_prefix('[')?))?;
            (Some(etag), trim(after).strip_prefix(']')?)
        };
        conditions.push(Condition { is_negated, etag });
        rest = trim(rest);
    }
}

/// Parses an entity tag (RFC 9110 §8.8.3), and returns what follows it.
fn entity_tag(text: &str) -> Option<(&str, &str)> {
    let opaque = text.strip_prefix("W/").unwrap_or(text).strip_prefix('"')?;
    let (_, after) = opaque.split_once('"')?;
    text.split_at_checked(text.len() - after.len())
}

fn is_absolute_uri(text: &str) -> bool {
    text.split_once(':').is_some_and(|(scheme, rest)| {
        scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
            && !rest.is_empty()
    })
}

fn is_visible(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b'<')
}

fn trim(text: &str) -> &str {
    text.trim_start_matches([' ', '\t'])
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    /// Whether a header holds for a resource whose ETag is `"e"`, at `/this`.
    fn holds(value: &str) -> Option<bool> {
        let headers = HeaderMap::from_iter([(IF, HeaderValue::from_str(value).unwrap())]);
        let resource = |tag: &str| match tag {
            "/this" | "https://here/this" => Tagged::Target,
            "/backup" => Tagged::Unknown,
            _ => Tagged::WithoutEtag,
        };
        let parsed = IfHeader::parse(&headers).ok()?.unwrap();
        Some(parsed.holds(Some("\"e\""), resource))
    }

    #[test]
    fn a_header_holds_if_all_conditions_of_one_of_its_lists_hold() {
        for good in [
            r#"(["e"])"#,
            r#"  ( [ "e" ]	)  "#,
            r#"(["x"]) (["e"])"#,
            r#"(<urn:x>)(["e"])"#,
            "(Not <DAV:no-lock>)",
            "(not<urn:x>NOT <urn:y>)",
            r#"(Not ["x"] ["e"] Not <urn:x>)"#,
            r#"</this> (["e"])"#,
            r#"<https://here/this> (["x"]) (["e"])"#,
            r#"</other> (["e"]) </this> (["e"])"#,
            // A resource that does not exist has no ETag, and none is locked.
            r#"</other> (Not ["e"])"#,
            "</backup> (Not <urn:x>)",
            r#"(Not ["a)]b"])"#,
        ] {
            assert_eq!(holds(good), Some(true), "{good}");
        }
        for bad in [
            r#"(["x"])"#,
            r#"(["E"])"#,
            r#"([W/"e"])"#,
            r#"(Not ["e"])"#,
            "(<opaquelocktoken:f81d4fae-7dec-11d0-a765-00a0c91e6bf6>)",
            "(<DAV:no-lock>)",
            r#"(["e"] <urn:x>)"#,
            r#"(["e"] ["x"])"#,
            r#"</other> (["e"])"#,
            r#"<http://elsewhere/this> (["e"])"#,
            r#"</backup> (["e"])"#,
            r#"</backup> (Not ["x"])"#,
        ] {
            assert_eq!(holds(bad), Some(false), "{bad}");
        }
    }

    #[test]
    fn a_resource_that_does_not_exist_has_no_etag() {
        let check = |value: &'static str| {
            let headers = HeaderMap::from_iter([(IF, HeaderValue::from_static(value))]);
            let parsed = IfHeader::parse(&headers).unwrap().unwrap();
            (parsed.has_etag(), parsed.holds(None, |_| Tagged::Target))
        };
        assert_eq!(check(r#"(["e"])"#), (true, false));
        assert_eq!(check(r#"(Not ["e"])"#), (true, true));
        assert_eq!(check("(<urn:x>)"), (false, false));
        assert_eq!(check("(Not <urn:x>)"), (false, true));
    }

    #[test]
    fn a_malformed_header_is_refused() {
        for bad in [
            "",
            " ",
            "*",
            "\"e\"",
            "()",
            "(",
            "(<urn:x>",
            "(<urn:x)",
            "<urn:x>",
            "</this>",
            "</this> </other> (<urn:x>)",
            "</this> (<urn:x>) </other>",
            "(<urn:x>) </this> (<urn:x>)",
            "(<>)",
            "(<x>)",
            "(</x>)",
            "(<:x>)",
            "(<urn: x>)",
            "<this> (<urn:x>)",
            "<> (<urn:x>)",
            "(urn:x)",
            "(Not)",
            "(Not Not <urn:x>)",
            "(No <urn:x>)",
            r#"([e])"#,
            r#"(["e)"#,
            r#"(["e"]"#,
            r#"(["e"x])"#,
            r#"(["])"#,
            r#"([""e"])"#,
            r#"([w/"e"])"#,
            r#"("e")"#,
            r#"(["e"]), (["x"])"#,
            r#"(["e"]) x"#,
        ] {
            assert_eq!(holds(bad), None, "{bad}");
        }
        let two = [r#"(["e"])"#; 2].map(|line| (IF, HeaderValue::from_static(line)));
        let mut headers = HeaderMap::new();
        for (name, value) in two {
            headers.append(name, value);
        }
        assert_eq!(IfHeader::parse(&headers).err(), Some(Reject::BadCondition));
    }
}
