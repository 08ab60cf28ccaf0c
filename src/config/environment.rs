//! Environment variables that override configuration keys: `SAFE_RETENTION_DAYS` sets
//! `retentionDays`, and two underscores separate levels: `SAFE_TLS__CERTIFICATE_FILE` sets
//! `tls.certificateFile`.

const PREFIX: &str = "SAFE_";

/// The name and the value of a variable.
pub(super) type Override = (String, String);

/// The variables that set keys, sorted by name.
pub(super) fn overrides(environment: impl IntoIterator<Item = (String, String)>) -> Vec<Override> {
    let mut overrides: Vec<_> = environment
        .into_iter()
        .filter(|(name, _)| name.starts_with(PREFIX) && !is_foreign(name))
        .collect();
    overrides.sort();
    overrides
}

/// True for variables with the same prefix that set no key: those of this program's command line
/// (two of them are read by `cli::first_account`), and those that Kubernetes sets in every
/// container in the namespace of a service called "safe".
fn is_foreign(name: &str) -> bool {
    name == "SAFE_CONFIG"
        || name == "SAFE_FIRST_ACCOUNT"
        || name == "SAFE_FIRST_SECRET_FILE"
        || name.starts_with("SAFE_CLIENT_")
        || name.starts_with("SAFE_SERVICE_")
        || name == "SAFE_PORT"
        || name.starts_with("SAFE_PORT_")
}

/// The path of keys that a variable sets, from the outermost inwards.
pub(super) fn keys(variable: &str) -> Vec<String> {
    let name = variable.strip_prefix(PREFIX).unwrap_or(variable);
    name.split("__").map(camel_case).collect()
}

fn camel_case(name: &str) -> String {
    let mut words = name.split('_').map(str::to_ascii_lowercase);
    let mut key = words.next().unwrap_or_default();
    for word in words {
        let mut letters = word.chars();
        key.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        key.push_str(letters.as_str());
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_keys() {
        assert_eq!(keys("SAFE_RETENTION_DAYS"), ["retentionDays"]);
        assert_eq!(
            keys("SAFE_TLS__CERTIFICATE_FILE"),
            ["tls", "certificateFile"]
        );
        assert_eq!(
            keys("SAFE_STORAGE__FILES__DIRECTORY"),
            ["storage", "files", "directory"]
        );
    }
}
