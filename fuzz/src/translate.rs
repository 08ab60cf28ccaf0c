//! Translation of HTTP/1.1 requests to HTTP/2 frames, so that one text is an input for both.

/// The connection preface of HTTP/2 (RFC 9113 §3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// Length of the largest frame that every server has to accept, in bytes (RFC 9113 §4.2).
const FRAME_BYTES: usize = 1 << 14;

/// The preface, empty settings, and a stream for each request in `text`. Any text gives some
/// frames; a body has the length of `Content-Length`, or of the remaining text if that is shorter.
#[must_use]
pub fn to_http_2(text: &[u8]) -> Vec<u8> {
    let mut frames = PREFACE.to_vec();
    push_frame(&mut frames, SETTINGS, 0, 0, b"");
    let mut rest = text;
    let mut stream = 1;
    while !rest.is_empty() {
        let (header, length) = header(&mut rest);
        let (body, after) = rest.split_at(length.unwrap_or(0).min(rest.len()));
        rest = after;
        let end = if body.is_empty() { END_STREAM } else { 0 };
        let header = &header[..header.len().min(FRAME_BYTES)];
        push_frame(&mut frames, HEADERS, END_HEADERS | end, stream, header);
        if !body.is_empty() {
            let body = &body[..body.len().min(FRAME_BYTES)];
            push_frame(&mut frames, DATA, END_STREAM, stream, body);
        }
        stream += 2;
    }
    frames
}

/// Takes a request's lines up to the empty one from `rest`; returns its header block and the length
/// of its body.
fn header(rest: &mut &[u8]) -> (Vec<u8>, Option<usize>) {
    let mut block = Vec::new();
    let mut length = None;
    let mut words = line(rest).split(|&byte| byte == b' ');
    push_field(&mut block, b":method", words.next().unwrap_or_default());
    push_field(&mut block, b":scheme", b"https");
    push_field(&mut block, b":path", words.next().unwrap_or_default());
    while !rest.is_empty() {
        let line = line(rest);
        if line.is_empty() {
            break;
        }
        let colon = line.iter().position(|&byte| byte == b':');
        let (name, value) = line.split_at(colon.unwrap_or(line.len()));
        let name = name.to_ascii_lowercase();
        let value = value.strip_prefix(b":").unwrap_or_default().trim_ascii();
        match &*name {
            b"host" => push_field(&mut block, b":authority", value),
            name => push_field(&mut block, name, value),
        }
        if name == b"content-length" {
            length = str::from_utf8(value)
                .ok()
                .and_then(|text| text.parse().ok());
        }
    }
    (block, length)
}

/// Takes one line from `rest`, without its line ending.
fn line<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let end = rest.iter().position(|&byte| byte == b'\n');
    let (line, after) = rest.split_at(end.map_or(rest.len(), |end| end + 1));
    *rest = after;
    line.trim_ascii_end()
}

/// Appends a literal header field without indexing, with a new name (RFC 7541 §6.2.2).
fn push_field(block: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    block.push(0);
    for text in [name, value] {
        push_length(block, text.len());
        block.extend_from_slice(text);
    }
}

/// Appends a length as an integer with a prefix of seven bits (RFC 7541 §5.1).
fn push_length(block: &mut Vec<u8>, length: usize) {
    const ALL: usize = 0x7f;
    let byte = |value: usize| u8::try_from(value).expect("seven bits and a flag fit into a byte");
    if length < ALL {
        return block.push(byte(length));
    }
    block.push(0x7f);
    let mut rest = length - ALL;
    while rest > ALL {
        block.push(byte(rest & ALL | 0x80));
        rest >>= 7;
    }
    block.push(byte(rest));
}

fn push_frame(frames: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).expect("a frame is short");
    frames.extend_from_slice(&length.to_be_bytes()[1..]);
    frames.extend([kind, flags]);
    frames.extend_from_slice(&stream.to_be_bytes());
    frames.extend_from_slice(payload);
}
