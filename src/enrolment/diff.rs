//! What changes in a file, for people to read before it happens. Pure.
//!
//! The files are short and the changes few: what is the same at both ends is left out but for two lines, and what is between is shown
//! as taken out and put in.

/// How many lines that stay are shown around a change.
const AROUND: usize = 2;

/// The change from `before` to `after`, line by line with ` `, `-` or `+` in front. Empty when nothing changes.
#[must_use]
pub fn diff(before: &str, after: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    let alike = |pairs: &mut dyn Iterator<Item = (&&str, &&str)>| pairs.take_while(|(a, b)| a == b).count();
    let head = alike(&mut old.iter().zip(&new));
    let most = old.len().min(new.len()).saturating_sub(head);
    let tail = alike(&mut old.iter().rev().zip(new.iter().rev())).min(most);
    let middle = |lines: &[&'_ str], sign: char| -> String {
        let end = lines.len().saturating_sub(tail);
        lines.get(head..end).unwrap_or_default().iter().map(|line| format!("{sign}{line}\n")).collect()
    };
    let (out, into) = (middle(&old, '-'), middle(&new, '+'));
    if out.is_empty() && into.is_empty() {
        return String::new();
    }
    let kept = |lines: &[&str]| -> String { lines.iter().map(|line| format!(" {line}\n")).collect() };
    let above = kept(old.get(head.saturating_sub(AROUND)..head).unwrap_or_default());
    let start = old.len().saturating_sub(tail);
    let below = kept(old.get(start..start.saturating_add(AROUND).min(old.len())).unwrap_or_default());
    format!("{above}{out}{into}{below}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_is_shown_with_two_lines_around_it() {
        assert_eq!(diff("", "a\nb\n"), "+a\n+b\n");
        assert_eq!(diff("a\nb\n", "a\nb\n"), "");
        assert_eq!(diff("1\n2\n3\n4\n5\n", "1\n2\n3\nnew\n4\n5\n"), " 2\n 3\n+new\n 4\n 5\n");
        assert_eq!(diff("1\nold\n2\n", "1\nnew\n2\n"), " 1\n-old\n+new\n 2\n");
        assert_eq!(diff("a\na\n", "a\na\na\n"), " a\n a\n+a\n");
        assert_eq!(diff("a\n", ""), "-a\n");
    }
}
