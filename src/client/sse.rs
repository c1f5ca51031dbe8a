//! Reading a stream of server-sent events (HTML standard, section 9.2), as far as we send them: `data` fields and comments.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::ClientError;

/// Longest event that is read: 1 MiB. Our own choice; a request with 16 hosts is a few KiB.
const EVENT_BYTES_MAX: usize = 1024 * 1024;

/// An open event stream.
#[derive(Debug)]
pub struct EventStream {
    answer: reqwest::Response,
    parser: Parser,
    /// When something came last. Kept here, since who waits may stop waiting and come back.
    heard: Instant,
}

impl EventStream {
    pub(super) fn new(answer: reqwest::Response) -> Self {
        Self { answer, parser: Parser::default(), heard: Instant::now() }
    }

    /// The next event's data; `None` when the stream has ended, was cut, or was silent for `overdue`.
    pub(super) async fn next(&mut self, overdue: Duration) -> Result<Option<String>, ClientError> {
        loop {
            if let Some(data) = self.parser.events.pop_front() {
                return Ok(Some(data));
            }
            let silent_until = self.heard.checked_add(overdue).unwrap_or(self.heard);
            match tokio::time::timeout_at(silent_until, self.answer.chunk()).await {
                Ok(Ok(Some(chunk))) => {
                    self.heard = Instant::now();
                    self.parser.push(&chunk)?;
                }
                Ok(Ok(None) | Err(_)) | Err(_) => return Ok(None),
            }
        }
    }
}

/// From bytes to events, whatever the chunks.
#[derive(Debug, Default)]
struct Parser {
    line: Vec<u8>,
    data: String,
    events: VecDeque<String>,
}

impl Parser {
    fn push(&mut self, chunk: &[u8]) -> Result<(), ClientError> {
        for byte in chunk {
            if *byte == b'\n' {
                let line = std::mem::take(&mut self.line);
                self.line(&line)?;
            } else {
                self.line.push(*byte);
            }
            if self.line.len().saturating_add(self.data.len()) > EVENT_BYTES_MAX {
                return Err(ClientError::Protocol(format!("an event longer than {EVENT_BYTES_MAX} bytes")));
            }
        }
        Ok(())
    }

    fn line(&mut self, line: &[u8]) -> Result<(), ClientError> {
        let line = std::str::from_utf8(line.strip_suffix(b"\r").unwrap_or(line))
            .map_err(|_not_utf8| ClientError::Protocol("an event that is not UTF-8".to_owned()))?;
        if line.is_empty() {
            if !self.data.is_empty() {
                self.events.push_back(std::mem::take(&mut self.data));
            }
        } else if let Some(data) = line.strip_prefix("data:") {
            if !self.data.is_empty() {
                self.data.push('\n');
            }
            self.data.push_str(data.strip_prefix(' ').unwrap_or(data));
        }
        // Comments (heartbeats) and fields we don't use have done their work by arriving.
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(chunks: &[&[u8]]) -> Vec<String> {
        let mut parser = Parser::default();
        for chunk in chunks {
            parser.push(chunk).unwrap();
        }
        parser.events.into()
    }

    #[test]
    fn events_are_data_and_everything_else_is_passed_over() {
        let text = b": beat\n\nid: 7\nevent: x\ndata: {\"a\":\ndata: 1}\n\n: beat\n\ndata:2\r\n\r\ndata: unfinished\n";
        assert_eq!(parse(&[text]), ["{\"a\":\n1}", "2"]);
    }

    #[test]
    fn an_endless_line_is_refused() {
        let mut parser = Parser::default();
        let chunk = vec![b'x'; EVENT_BYTES_MAX];
        parser.push(&chunk).unwrap();
        assert!(parser.push(b"x").is_err());
    }

    #[test]
    fn endless_data_is_refused() {
        let mut parser = Parser::default();
        let line = [b"data: ".as_slice(), &[b'x'; 1000], b"\n"].concat();
        let refused = (0..2000).any(|_| parser.push(&line).is_err());
        assert!(refused);
    }

    proptest! {
        #[test]
        fn chunks_do_not_matter(cut in 0_usize..46) {
            let text = b": beat\n\ndata: {\"state\":\"pending\"}\n\ndata: 2\n\n";
            let (a, b) = text.split_at(cut.min(text.len()));
            prop_assert_eq!(parse(&[a, b]), parse(&[text]));
        }
    }
}
