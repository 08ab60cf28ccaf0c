//! The format against vectors that an independent implementation made.

use serde::Deserialize;
use threema_safe_server::backup::{
    Document, INFLATE_LIMIT, MasterKey, Nonce, Password, SealedBackup, open, seal,
};
use zeroize::Zeroizing;

const VECTORS: &str = include_str!("../vectors/format.json");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vectors {
    #[serde(rename = "note")]
    _note: String,
    kdf: Vec<Derivation>,
    envelope: Vec<Envelope>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Derivation {
    #[serde(rename = "password")]
    _password: Option<String>,
    password_utf8_hex: Option<String>,
    password_desc: Option<String>,
    identity: String,
    master_key: String,
    backup_id: String,
    encryption_key: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    compression: String,
    password: String,
    identity: String,
    nonce: String,
    plaintext_json_utf8: String,
    #[serde(rename = "gzip_hex")]
    _gzip_hex: String,
    blob_hex: String,
    blob_len: usize,
}

fn vectors() -> Vectors {
    serde_json::from_str(VECTORS).unwrap()
}

fn derive(password: &[u8], identity: &str) -> MasterKey {
    let password = Password::new(Zeroizing::new(password.to_vec()));
    MasterKey::derive_with_salt(&password, identity.as_bytes().try_into().unwrap())
}

#[test]
fn every_derivation_gives_the_backup_id_and_the_key() {
    let derivations = vectors().kdf;
    assert_eq!(derivations.len(), 9);
    for vector in derivations {
        let password = match (&vector.password_utf8_hex, vector.password_desc.as_deref()) {
            (Some(bytes), _) => hex::decode(bytes).unwrap(),
            (None, Some("the letter a, 4096 times")) => vec![b'a'; 4096],
            other => panic!("a password in another form: {other:?}"),
        };

        let key = derive(&password, &vector.identity);

        assert_eq!(
            key.backup_id().to_hex(),
            vector.backup_id,
            "{}",
            vector.identity
        );
        assert_eq!(vector.master_key, vector.backup_id + &vector.encryption_key);
        // A key cannot be looked at; what it seals opens under the expected key and under no other.
        let expected = hex::decode(&vector.encryption_key)
            .unwrap()
            .try_into()
            .unwrap();
        let expected = threema_safe_server::backup::BackupKey::from_bytes(expected);
        let document = Document::sample(&"ECHOECHO".parse().unwrap(), 0);
        let sealed = seal(&document, &key.backup_key(), Nonce::random());
        assert!(
            open(sealed, &expected, INFLATE_LIMIT).is_ok(),
            "{}",
            vector.identity
        );
    }
}

#[test]
fn every_envelope_opens_to_the_document() {
    let envelopes = vectors().envelope;
    assert_eq!(envelopes.len(), 2);
    for vector in envelopes {
        let key = derive(vector.password.as_bytes(), &vector.identity).backup_key();
        let blob = hex::decode(&vector.blob_hex).unwrap();
        assert_eq!(blob.len(), vector.blob_len);

        let sealed = SealedBackup::try_from(bytes::Bytes::from(blob)).unwrap();
        let document = open(sealed, &key, INFLATE_LIMIT).unwrap();

        assert_eq!(
            document.json(),
            vector.plaintext_json_utf8.as_bytes(),
            "{}",
            vector.compression
        );
    }
}

#[test]
fn sealing_gives_the_same_bytes_as_the_independent_implementation() {
    let envelopes = vectors().envelope;
    let stored = envelopes
        .iter()
        .find(|vector| vector.compression.contains("level 0"))
        .unwrap();
    let key = derive(stored.password.as_bytes(), &stored.identity).backup_key();
    let nonce = Nonce::from_bytes(hex::decode(&stored.nonce).unwrap().try_into().unwrap());
    let json = Zeroizing::new(stored.plaintext_json_utf8.clone().into_bytes());

    let sealed = seal(&Document::from_json(json).unwrap(), &key, nonce);

    assert_eq!(hex::encode(sealed.as_bytes()), stored.blob_hex);
}
