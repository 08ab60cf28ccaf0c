//! Parsers for strings in the configuration: paths, addresses, URLs.

use std::net::SocketAddr;

use http::Uri;

/// Parses a path.
pub(super) fn path(text: &str) -> Result<String, String> {
    if text.is_empty() {
        Err("must not be empty: expected a path".into())
    } else {
        Ok(text.into())
    }
}

/// Parses an IP address with a port.
pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!("must be an IP address and a port such as \"[::]:8443\" or \"0.0.0.0:8443\", not \"{text}\"")
    })
}

/// Parses the URL that the apps use, and adds a slash at its end.
pub(super) fn public_url(text: &str) -> Result<String, String> {
    let uri: Uri = text
        .parse()
        .map_err(|_| format!("must be a URL, not \"{text}\""))?;
    let plain = uri.scheme_str() == Some("https")
        && uri
            .authority()
            .is_some_and(|authority| !authority.as_str().contains('@'))
        && uri.query().is_none()
        && !text.contains('#')
        && text.starts_with("https://");
    if !plain {
        return Err(
            "must begin with https:// in lower case and have no user name, query or fragment: \
             with others, the apps would send backups elsewhere or not at all"
                .into(),
        );
    }
    Ok(if text.ends_with('/') {
        text.into()
    } else {
        format!("{text}/")
    })
}

/// Parses the path of all resources; the result begins and ends with a slash.
pub(super) fn base_path(text: &str) -> Result<String, String> {
    let plain = |segment: &str| {
        !segment.is_empty()
            && !segment.trim_matches('.').is_empty()
            && segment
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
    };
    let inner = text.trim_matches('/');
    let good = text.starts_with('/') && (inner.is_empty() || inner.split('/').all(plain));
    match (good, inner) {
        (false, _) => Err(format!(
            "must be a path such as \"/\" or \"/safe/\", not \"{text}\""
        )),
        (true, "") => Ok("/".into()),
        (true, inner) => Ok(format!("/{inner}/")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_urls_and_base_paths_are_normalised() {
        for (given, expected) in [
            ("/", "/"),
            ("/safe", "/safe/"),
            ("/a/b/", "/a/b/"),
            ("//", "/"),
        ] {
            assert_eq!(base_path(given).as_deref(), Ok(expected));
        }
        for bad in ["", "safe", "/a//b", "/a/../b", "/a%2fb", "/ä", "/a b"] {
            assert!(base_path(bad).is_err(), "{bad}");
        }
        assert_eq!(
            public_url("https://safe.example.org"),
            Ok("https://safe.example.org/".into())
        );
        for bad in [
            "http://a/",
            "HTTPS://a/",
            "https://u:p@a/",
            "https://a/?q",
            "https://a/#f",
            "a",
            "",
        ] {
            assert!(public_url(bad).is_err(), "{bad}");
        }
    }
}
