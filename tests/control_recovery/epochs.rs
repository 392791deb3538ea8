//! Backups, wipes, restores: every sequence of them ends with all proxies on what the members have.
