//! The nearest valid name to a misspelled one.

/// The candidate that is closest to `wanted`, if one is close enough to have been meant.
pub(crate) fn nearest<'a>(wanted: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A third of the letters may be wrong; more is a different word.
    let tolerance = (wanted.chars().count() / 3).clamp(1, 6);
    // Beyond this nobody mistyped anything, and the comparison would cost the square of it.
    const LONGEST: usize = 200;
    if wanted.len() > LONGEST {
        return None;
    }
    candidates
        .into_iter()
        .map(|candidate| (distance(wanted, candidate), candidate))
        .filter(|(distance, _)| *distance <= tolerance)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edits (insert, delete, replace, swap neighbours) that turn one word into the other.
fn distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.chars().collect();
    let right: Vec<char> = right.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=right.len()).collect();
    for (row, a) in left.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, b) in right.iter().enumerate() {
            let replaced = above[column] + usize::from(a != b);
            let mut best = replaced.min(above[column + 1] + 1).min(current[column] + 1);
            if row > 0 && column > 0 && *a == right[column - 1] && left[row - 1] == *b {
                best = best.min(before[column - 1] + 1);
            }
            current.push(best);
        }
        before = std::mem::replace(&mut above, current);
    }
    above[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelled_name_finds_its_neighbour() {
        let names = ["failure_threshold", "success_threshold", "timeout_seconds"];
        assert_eq!(nearest("failure_treshold", names), Some("failure_threshold"));
        assert_eq!(nearest("timout_second", names), Some("timeout_seconds"));
        assert_eq!(
            nearest("OMEGA_MAX_RETIRES", ["OMEGA_MAX_RETRIES", "OMEGA_MODEL"]),
            Some("OMEGA_MAX_RETRIES")
        );
    }

    #[test]
    fn a_different_word_finds_nothing() {
        assert_eq!(nearest("colour", ["failure_threshold", "model", "state"]), None);
        assert_eq!(nearest("", ["model"]), None);
        assert_eq!(nearest(&"a".repeat(10_000), ["model"]), None);
    }

    #[test]
    fn swapped_neighbours_are_one_edit() {
        assert_eq!(distance("opneai", "openai"), 1);
        assert_eq!(distance("openai", "openai"), 0);
        assert_eq!(distance("", "abc"), 3);
    }
}
