//! A new disk takes the place of the old one.

use std::path::Path;

/// What is moved into place when a recovery is finished; the directory's own lock stays where it is.
pub(super) const FILES: [&str; 2] = ["raft.redb", "node.json"];

/// Moves the new disk into the old one's place, and the old one beside; begun again after a crash, it goes on.
pub(super) fn swap(directory: &Path, fresh: &Path, before: &Path) -> std::io::Result<()> {
    for name in FILES {
        let (new, here, old) = (fresh.join(name), directory.join(name), before.join(name));
        if !new.exists() {
            continue;
        }
        if here.exists() && !old.exists() {
            std::fs::rename(&here, &old)?;
        }
        std::fs::rename(&new, &here)?;
    }
    for path in [before, directory] {
        std::fs::File::open(path)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_swap_that_was_broken_off_anywhere_ends_with_the_new_disk_and_keeps_the_old_one() {
        // As many steps as renames, and then all.
        for steps in 0..=4 {
            let directory = tempfile::tempdir().unwrap();
            let (here, fresh, before) =
                (directory.path().to_owned(), directory.path().join("f"), directory.path().join("b"));
            for path in [&fresh, &before] {
                std::fs::create_dir(path).unwrap();
            }
            for name in FILES {
                std::fs::write(here.join(name), "old").unwrap();
                std::fs::write(fresh.join(name), "new").unwrap();
            }
            let moves = FILES
                .iter()
                .flat_map(|name| [(here.join(name), before.join(name)), (fresh.join(name), here.join(name))]);
            for (from, to) in moves.take(steps) {
                std::fs::rename(from, to).unwrap();
            }
            swap(&here, &fresh, &before).unwrap();
            swap(&here, &fresh, &before).unwrap();
            for name in FILES {
                assert_eq!(std::fs::read_to_string(here.join(name)).unwrap(), "new", "{steps}");
                assert_eq!(std::fs::read_to_string(before.join(name)).unwrap(), "old", "{steps}");
            }
        }
    }
}
