//! MIME multi-part user data, as cloud-init and nodeadm read it.

use super::UserDataError;

const BOUNDARY: &str = "//";
/// Type of a shell script part.
pub(super) const SHELL: &str = "text/x-shellscript; charset=\"us-ascii\"";

/// One part: headers in order, and content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) headers: Vec<(String, String)>,
    pub(super) content: String,
}

impl Part {
    /// A part of a type.
    pub(super) fn new(content_type: &str, content: impl Into<String>) -> Self {
        Self {
            headers: vec![("Content-Type".to_owned(), content_type.to_owned())],
            content: content.into(),
        }
    }

    /// Its type header, if any.
    pub(super) fn content_type(&self) -> Option<&str> {
        let of = |(name, _): &&(String, String)| name.eq_ignore_ascii_case("Content-Type");
        self.headers
            .iter()
            .find(of)
            .map(|(_, value)| value.as_str())
    }
}

/// Whether a text is MIME.
pub(super) fn is_mime(text: &str) -> bool {
    let text = text.trim_start();
    text.starts_with("MIME-Version:") || text.starts_with("Content-Type:")
}

/// Parts of a multi-part text.
pub(super) fn parse(text: &str) -> Result<Vec<Part>, UserDataError> {
    let bad = |what: &str| UserDataError::Custom(format!("MIME: {what}"));
    let text = text.replace('\r', "");
    let (head, body) = text
        .trim_start()
        .split_once("\n\n")
        .ok_or_else(|| bad("no blank line after the headers"))?;
    let boundary = headers(head)
        .into_iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("Content-Type"))
        .and_then(|(_, value)| boundary_of(&value))
        .ok_or_else(|| bad("no boundary in the Content-Type header"))?;
    let delimiter = format!("--{boundary}");
    let mut parts = Vec::new();
    let mut lines: Option<Vec<&str>> = None;
    let mut closed = false;
    for line in body.split('\n') {
        let mark = line.trim_end();
        if mark == delimiter || mark == format!("{delimiter}--") {
            parts.extend(lines.take().map(|l| part(&l)));
            lines = Some(Vec::new());
            if mark != delimiter {
                closed = true;
                break;
            }
        } else if let Some(lines) = &mut lines {
            lines.push(line);
        }
    }
    if !closed {
        return Err(bad("no closing boundary"));
    }
    Ok(parts)
}

fn boundary_of(value: &str) -> Option<String> {
    let (_, rest) = value.split_once("boundary=")?;
    let rest = rest.trim();
    match rest.strip_prefix('"') {
        Some(quoted) => quoted.split_once('"').map(|(b, _)| b.to_owned()),
        None => rest.split([';', ' ']).next().map(str::to_owned),
    }
}

fn headers(text: &str) -> Vec<(String, String)> {
    text.lines()
        .filter_map(|l| l.split_once(':'))
        .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
        .collect()
}

fn part(lines: &[&str]) -> Part {
    let text = lines.join("\n");
    let (head, content) = text.split_once("\n\n").unwrap_or(("", &text));
    Part {
        headers: headers(head),
        content: content.to_owned(),
    }
}

/// The envelope around parts.
pub(super) fn render(parts: &[Part]) -> String {
    let mut out =
        format!("MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"{BOUNDARY}\"\n\n");
    for (i, part) in parts.iter().enumerate() {
        if i > 0 {
            out.push('\n');
        }
        out.push_str(&format!("--{BOUNDARY}\n"));
        for (name, value) in &part.headers {
            out.push_str(&format!("{name}: {value}\n"));
        }
        out.push('\n');
        out.push_str(&part.content);
    }
    out.push_str(&format!("\n--{BOUNDARY}--\n"));
    out.replace('\r', "")
}
