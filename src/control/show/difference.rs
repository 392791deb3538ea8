//! What is different between two texts, by lines.

/// Lines of a difference. Source: Myers, "An O(ND) Difference Algorithm and Its Variations", 1986, in its simplest form.
pub(in crate::control) fn line_diff(old: &str, new: &str) -> Vec<(char, String)> {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let same_head = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let same_tail =
        old[same_head..].iter().rev().zip(new[same_head..].iter().rev()).take_while(|(a, b)| a == b).count();
    let (old_middle, new_middle) = (&old[same_head..old.len() - same_tail], &new[same_head..new.len() - same_tail]);
    let mut lines: Vec<(char, String)> = old[..same_head].iter().map(|line| (' ', (*line).to_owned())).collect();
    lines.extend(middle_diff(old_middle, new_middle));
    lines.extend(old[old.len() - same_tail..].iter().map(|line| (' ', (*line).to_owned())));
    lines
}

/// Longest common subsequence; texts too long for its table are shown as replaced.
fn middle_diff(old: &[&str], new: &[&str]) -> Vec<(char, String)> {
    const CELLS_MAX: usize = 16 << 20;
    let own = |mark, line: &&str| (mark, (*line).to_owned());
    if old.len().saturating_mul(new.len()) > CELLS_MAX {
        return old.iter().map(|line| own('-', line)).chain(new.iter().map(|line| own('+', line))).collect();
    }
    let width = new.len() + 1;
    let mut common = vec![0_u32; (old.len() + 1) * width];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i * width + j] = if old[i] == new[j] {
                common[(i + 1) * width + j + 1] + 1
            } else {
                common[(i + 1) * width + j].max(common[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut lines = Vec::new();
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            lines.push(own(' ', &old[i]));
            (i, j) = (i + 1, j + 1);
        } else if j >= new.len() || (i < old.len() && common[(i + 1) * width + j] >= common[i * width + j + 1]) {
            lines.push(own('-', &old[i]));
            i += 1;
        } else {
            lines.push(own('+', &new[j]));
            j += 1;
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_lead_from_one_text_to_the_other() {
        for (old, new) in
            [("", "a\nb"), ("a\nb\nc\nd", "a\nx\nc\nd\ne"), ("a\nb", ""), ("same", "same"), ("b\na", "a\nb")]
        {
            let lines = line_diff(old, new);
            let side = |other: char| {
                lines
                    .iter()
                    .filter(|(mark, _)| *mark != other)
                    .map(|(_, line)| line.as_str())
                    .collect::<Vec<_>>()
                    .join("\n")
            };
            assert_eq!((side('+').as_str(), side('-').as_str()), (old, new));
        }
    }
}
