//! Unit tests of the document.

use super::*;

fn parse(json: &[u8]) -> Result<Document, DocumentError> {
    Document::from_json(Zeroizing::new(json.into()))
}

#[test]
fn a_document_is_kept_to_the_byte() {
    for json in [
        r#" { "future": [1, 2.50, 1e400], "b": 1, "a": 2, "a": 3 } "#,
        "{}",
        "\n\t{}\r\n",
        &format!("{{\"deep\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000)),
    ] {
        assert_eq!(parse(json.as_bytes()).unwrap().json(), json.as_bytes());
    }
}

#[test]
fn a_syntax_error_has_its_position() {
    for (json, line, column) in [
        (&b""[..], 1, 0),
        (b"{\n \"a\": nul }", 2, 10),
        (b"{} x", 1, 4),
        (b"{\n\"a\":\"\xff\"}", 2, 6),
        (b"\xff", 1, 1),
    ] {
        let error = parse(json).err().unwrap();
        assert_eq!(error, DocumentError::NotJson { line, column });
    }
}

#[test]
fn unknown_absent_null_and_wrong_fields_are_kept_at_every_level() {
    let json = r#"{
        "info": {"version": "1", "new": [1, {"a": null}]},
        "user": {"privatekey": 7, "links": [{"type": null, "x": 1.5}, null, 3], "profilePicRelease": [null]},
        "contacts": [{"identity": "ECHOECHO", "lastUpdate": null, "later": {"b": [-1]}}, "odd"],
        "groups": {"not": "a list"},
        "distributionlists": [{"members": [null, 1, "ECHOECHO"], "y": ""}],
        "settings": {"syncContacts": 0, "locationPreviews": false},
        "another": 18446744073709551615
    }"#;
    let document = parse(json.as_bytes()).unwrap();

    let written = document.contents().unwrap().to_document();

    let value = |json: &[u8]| serde_json::from_slice::<Value>(json).unwrap();
    assert_eq!(value(written.json()), value(json.as_bytes()));
}

#[test]
fn contents_are_written_compactly_with_escaped_slashes_in_androids_order() {
    let json = r#"{"z":"/","user":{"nickname":"a/b","privatekey":"/"},"info":{"device":"6A/de","version":1}}"#;

    let written = parse(json.as_bytes()).unwrap().contents().unwrap();

    assert_eq!(
        str::from_utf8(written.to_document().json()).unwrap(),
        r#"{"info":{"version":1,"device":"6A\/de"},"user":{"privatekey":"\/","nickname":"a\/b"},"z":"\/"}"#
    );
}

#[test]
fn redacting_takes_the_keys_out_and_nothing_else() {
    for (json, expected) in [
        (
            r#"{"user":{"privatekey":"k","nickname":"n","temporaryDeviceGroupKeyTodoRemove":"k"}}"#,
            r#"{"user":{"nickname":"n"}}"#,
        ),
        (r#"{"user":{"private\u006bey":["k"]}}"#, r#"{"user":{}}"#),
        (r#"{"user":"k","a":1}"#, r#"{"a":1}"#),
        (r#"{"a":1}"#, r#"{"a":1}"#),
    ] {
        let mut contents = parse(json.as_bytes()).unwrap().contents().unwrap();
        contents.redact();
        let redacted = contents.to_document();
        assert_eq!(str::from_utf8(redacted.json()).unwrap(), expected);
    }
}

#[test]
fn contents_that_cannot_be_represented_are_an_error() {
    for json in [
        "{\"a\":1e400}".to_owned(),
        format!("{{\"a\":{}{}}}", "[".repeat(200), "]".repeat(200)),
    ] {
        let contents = parse(json.as_bytes()).unwrap().contents();
        assert!(matches!(
            contents.err(),
            Some(ContentsError::Unreadable { .. })
        ));
    }
}

#[test]
fn the_number_of_values_is_limited() {
    let zeros = |count: usize| format!("{{\"contacts\":[{}0]}}", "0,".repeat(count - 1));
    let contents = |json: String| parse(json.as_bytes()).unwrap().contents();
    assert!(contents(zeros(MAX_VALUES - 1)).is_ok());
    assert_eq!(
        contents(zeros(MAX_VALUES)).err(),
        Some(ContentsError::TooMany)
    );
    // A comma in a string does not count, also not at the limit.
    let full = zeros(MAX_VALUES - 2).replace('}', r#","a":","}"#);
    assert!(contents(full).is_ok());
}

#[test]
fn a_written_document_was_never_copied_by_a_growing_buffer() {
    let json = r#"{"user":{"privatekey":"AQIDBAUGBwhkZWZnaGlqawECAwQFBgcIZGVmZ2hpams=","nickname":"a/b"}}"#;
    let written = parse(json.as_bytes()).unwrap().contents().unwrap();

    let document = written.to_document();

    assert_eq!(document.json.capacity(), document.json.len());
}

#[test]
fn commas_and_brackets_in_a_string_are_no_values_and_no_levels() {
    let text = r#",[{\\\","#.repeat(MAX_VALUES);
    let document = parse(format!("{{\"user\":{{\"nickname\":\"{text}\"}}}}").as_bytes());
    let contents = document.unwrap().contents().unwrap();
    let nickname = &contents.user.get().unwrap().nickname;
    assert!(nickname.get().unwrap().starts_with(",[{\\\",,[{"));
}

#[test]
fn nesting_is_limited() {
    let nested = |levels: usize| {
        let (open, close) = ("[".repeat(levels - 1), "]".repeat(levels - 1));
        parse(format!("{{\"a\":[{{}},\"\\\"[\"],\"b\":{open}{close}}}").as_bytes())
    };
    assert!(nested(MAX_LEVELS).is_ok());
    assert_eq!(nested(MAX_LEVELS + 1).err(), Some(DocumentError::TooDeep));
    // Arrays side by side do not add levels.
    let flat = format!("{{\"a\":[{}0]}}", "[],".repeat(2 * MAX_LEVELS));
    assert!(parse(flat.as_bytes()).is_ok());
}

#[test]
fn the_newest_entry_is_the_latest_time_anywhere() {
    let newest = |json: &str| {
        parse(json.as_bytes())
            .unwrap()
            .contents()
            .unwrap()
            .newest_entry()
    };
    for (json, expected) in [
        (
            r#"{"contacts":[{"createdAt":5,"lastUpdate":null},{"createdAt":3,"lastUpdate":4}]}"#,
            Some(5),
        ),
        (
            r#"{"contacts":[{"createdAt":5}],"groups":[{"lastUpdate":6}]}"#,
            Some(6),
        ),
        (
            r#"{"distributionlists":[{"lastUpdate":7}],"groups":[{"lastUpdate":6}]}"#,
            Some(7),
        ),
        (r#"{"contacts":[{"createdAt":0}],"groups":[3]}"#, None),
        ("{}", None),
    ] {
        assert_eq!(newest(json), expected, "{json}");
    }
}

#[test]
fn other_json_is_not_a_document() {
    for json in ["[]", "1", "\"{}\"", "null", " true"] {
        let error = parse(json.as_bytes()).err();
        assert_eq!(error, Some(DocumentError::NotAnObject), "{json}");
    }
}
