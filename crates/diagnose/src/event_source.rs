//! The rules by which a browser's `EventSource` accepts a response (HTML, section 9.2), and the
//! assessment by them.

use waterclock::sse;

use crate::{
    check::Check,
    client::{Redirects, StreamResponse},
    fault::Fault,
    finding::{Finding, Verdict},
};

/// Assesses a response by the rules of `EventSource`: its redirects, its status and its content
/// type.
pub fn assess(response: &StreamResponse) -> Finding {
    let Redirects { statuses, objection } = &response.redirects;
    let mut verdict = Verdict::Good;
    let (mut faults, mut measured) = (Vec::new(), Vec::new());
    if let Some(objection) = objection {
        verdict = objection.verdict;
        faults.push(objection.fault);
        measured.push(objection.reason.clone());
    }
    let content_type = check_content_type(response.headers());
    if response.status != 200 {
        verdict = Verdict::Bad;
        faults.push(Fault::Status);
        measured.push(match response.status {
            204 => "the status is 204, at which a browser stops for good".to_owned(),
            status => {
                format!("the status is {status}; a browser accepts only 200, and stops for good")
            }
        });
    } else if let Err(problem) = content_type {
        verdict = Verdict::Bad;
        faults.push(Fault::ContentType);
        measured.push(problem);
    }
    if measured.is_empty() {
        measured.push(match &statuses[..] {
            [] => "accepted".to_owned(),
            [status] => format!("accepted after a redirect ({status})"),
            statuses => {
                let list: Vec<_> = statuses.iter().map(u16::to_string).collect();
                format!("accepted after {} redirects ({})", list.len(), list.join(", "))
            }
        });
    }
    Finding::new(Check::EventSource, verdict, measured.join("; "), faults)
}

/// Returns `true` if the response is an event stream for at least some browsers.
pub fn is_stream(response: &StreamResponse) -> bool {
    response.status == 200
        && media_type(response.headers()).is_some_and(|(essence, _)| essence == sse::CONTENT_TYPE)
}

/// Tests the content type of a stream. Returns the problem in words.
///
/// # Errors
///
/// Returns an error if some browsers reject the content type.
pub fn check_content_type<'a>(
    headers: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<(), String> {
    let headers: Vec<_> = headers.into_iter().collect();
    match media_type(headers.iter().copied()) {
        Some((essence, charset)) if essence == sse::CONTENT_TYPE => match charset {
            // The standard ignores it, and so does Firefox. The stream is UTF-8 in any case.
            Some(charset) if !charset.eq_ignore_ascii_case("utf-8") => {
                Err(format!("the charset is `{charset}`; Chrome and Safari accept only `utf-8`"))
            }
            _ => Ok(()),
        },
        _ => match joined(headers) {
            Some(value) => Err(format!("the content type is `{value}`")),
            None => Err("there is no content type".to_owned()),
        },
    }
}

fn joined<'a>(headers: impl IntoIterator<Item = (&'a str, &'a str)>) -> Option<String> {
    let is_it = |(name, _): &(&str, &str)| name.eq_ignore_ascii_case("content-type");
    let values: Vec<_> = headers.into_iter().filter(is_it).map(|(_, value)| value).collect();
    (!values.is_empty()).then(|| values.join(", "))
}

/// Extracts the MIME type, in lower case, and its charset (Fetch, section 2.2.2). The last valid
/// one counts. Returns `None` if there is none.
fn media_type<'a>(
    headers: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Option<(String, Option<String>)> {
    let value = joined(headers)?;
    split_unquoted(&value, ',').filter_map(parse_media_type).last()
}

fn parse_media_type(text: &str) -> Option<(String, Option<String>)> {
    let mut parts = split_unquoted(text, ';');
    let essence = parts.next()?.trim().to_ascii_lowercase();
    let (kind, subtype) = essence.split_once('/')?;
    if !is_token(kind) || !is_token(subtype) || essence == "*/*" {
        return None;
    }
    let charset = parts.find_map(|part| {
        let (name, value) = part.split_once('=')?;
        let value = value.trim_end().trim_matches('"');
        (name.trim_start().eq_ignore_ascii_case("charset") && !value.is_empty())
            .then(|| value.to_owned())
    });
    Some((essence, charset))
}

/// Splits at a separator, except within quotes.
fn split_unquoted(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut is_quoted = false;
    text.split(move |letter| {
        is_quoted ^= letter == '"';
        letter == separator && !is_quoted
    })
}

/// Returns `true` for a token of HTTP (RFC 9110, section 5.6.2).
fn is_token(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_allowed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        client::{Objection, StreamEnd},
        stream_reader::StreamReader,
    };

    fn response(status: u16, content_types: &[&str]) -> StreamResponse {
        let header = |value: &&str| ("Content-Type".to_owned(), (*value).to_owned());
        StreamResponse {
            status,
            headers: content_types.iter().map(header).collect(),
            redirects: Redirects::default(),
            requested_at: 0.0,
            responded_at: 0.0,
            ended_at: 0.0,
            end: StreamEnd::Stopped,
            reader: StreamReader::default(),
        }
    }

    #[test]
    fn only_status_200_is_a_stream() {
        let finding = assess(&response(200, &["text/event-stream"]));
        assert_eq!((finding.verdict, &*finding.measured), (Verdict::Good, "accepted"));
        for status in [201, 202, 203, 204, 205, 206, 210, 299, 300, 302, 304, 404, 410, 429, 503] {
            for content_types in [&["text/event-stream"][..], &[]] {
                let response = response(status, content_types);
                let finding = assess(&response);
                assert!(!is_stream(&response));
                assert_eq!(
                    (finding.verdict, &*finding.faults),
                    (Verdict::Bad, &[Fault::Status][..])
                );
                assert!(finding.measured.starts_with(&format!("the status is {status}")));
            }
        }
    }

    #[test]
    fn a_content_type_is_parsed_as_by_browsers() {
        for accepted in [
            &["text/event-stream"][..],
            &["text/event-stream;"],
            &["text/event-stream; "],
            &["Text/Event-Stream"],
            &[" text/event-stream ;charset=utf-8"],
            &["text/event-stream; charset=UTF-8"],
            &["text/event-stream;charset=\"utf-8\""],
            &["text/event-stream;;;;charset=utf-8"],
            &["text/event-stream; charset"],
            &["text/event-stream; q=\"a,b;charset=x\""],
            &["text/event-stream; x=y; charset=utf-8; charset=latin1"],
            &["text/html", "text/event-stream"],
            &["text/html, text/event-stream"],
            &["text/event-stream", ""],
            &["text/event-stream, */*"],
        ] {
            let response = response(200, accepted);
            assert_eq!(assess(&response).faults, [], "{accepted:?}");
            assert!(is_stream(&response), "{accepted:?}");
        }
        for rejected in [
            &[][..],
            &[""],
            &["text/plain"],
            &["text/x-bogus"],
            &["text/event-stream-bogus"],
            &["text/event-stream bogus"],
            &["x bogus"],
            &["text/event-stream/"],
            &["text / event-stream"],
            &["event-stream"],
            &["text/event-stream", "text/html"],
            &["application/x-ndjson; charset=utf-8"],
            &["text/html; x=\"text/event-stream\""],
        ] {
            let response = response(200, rejected);
            let finding = assess(&response);
            assert_eq!(
                (finding.verdict, &*finding.faults),
                (Verdict::Bad, &[Fault::ContentType][..])
            );
            assert!(!is_stream(&response), "{rejected:?}");
        }
    }

    #[test]
    fn a_charset_other_than_utf_8_is_rejected_by_some_browsers() {
        for charset in ["windows-1252", "iso-8859-1", "utf8", "utf-16"] {
            let content_type = format!("text/event-stream; charset={charset}");
            let response = response(200, &[&content_type]);
            let finding = assess(&response);
            assert_eq!(
                (finding.verdict, &*finding.faults),
                (Verdict::Bad, &[Fault::ContentType][..])
            );
            assert!(finding.measured.starts_with(&format!("the charset is `{charset}`")));
            assert!(is_stream(&response), "Firefox accepts it");
        }
    }

    #[test]
    fn redirects_and_the_objections_to_them_are_reported() {
        let mut response = response(200, &["text/event-stream"]);
        response.redirects.statuses = vec![301];
        assert_eq!(assess(&response).measured, "accepted after a redirect (301)");
        response.redirects.statuses.push(307);
        assert_eq!(assess(&response).measured, "accepted after 2 redirects (301, 307)");
        let reason = "no".to_owned();
        let objection = Objection { fault: Fault::Cors, verdict: Verdict::Warning, reason };
        response.redirects.objection = Some(objection);
        let finding = assess(&response);
        assert_eq!((finding.verdict, &*finding.faults), (Verdict::Warning, &[Fault::Cors][..]));
        response.status = 404;
        let finding = assess(&response);
        let faults = &[Fault::Cors, Fault::Status][..];
        assert_eq!((finding.verdict, &*finding.faults), (Verdict::Bad, faults));
    }
}
