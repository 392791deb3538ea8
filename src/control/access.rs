//! Whom the command line asks, by what it shows.

use anyhow::bail;
use clap::Args;
use ringway_config::model::{Control, MemberUrl};
use ringway_control::http::Api;
use ringway_control::member::client_settings;
use std::path::PathBuf;

/// Whom to ask, and how to print what they say.
#[derive(Debug, Args)]
pub(crate) struct Access {
    /// Addresses of members' API; any will do.
    #[arg(
        long,
        global = true,
        value_name = "URL",
        value_delimiter = ',',
        env = "RINGWAY_CONTROL",
        default_value = "http://127.0.0.1:9700"
    )]
    pub(super) members: Vec<String>,
    /// File with a bearer token.
    #[arg(long, global = true, value_name = "FILE", env = "RINGWAY_TOKEN_FILE")]
    pub(super) token_file: Option<PathBuf>,
    /// PEM file of the authorities of members' certificates; without it, the public ones.
    #[arg(long, global = true, value_name = "FILE", env = "RINGWAY_CA")]
    pub(super) ca: Option<PathBuf>,
    /// PEM file of a certificate that is shown to members.
    #[arg(long, global = true, value_name = "FILE", requires = "key_file")]
    pub(super) certificate: Option<PathBuf>,
    /// PEM file of its key.
    #[arg(long, global = true, value_name = "FILE", requires = "certificate")]
    pub(super) key_file: Option<PathBuf>,
    #[command(flatten)]
    pub(super) etcd: EtcdAccess,
    /// Print JSON.
    #[arg(long, global = true)]
    pub(super) json: bool,
}

/// Where etcd is, and who asks.
#[derive(Debug, Args)]
pub(crate) struct EtcdAccess {
    /// Addresses of etcd, instead of members; any will do. For `apply` and `get`.
    #[arg(long = "etcd", global = true, value_name = "URL", value_delimiter = ',')]
    pub(super) endpoints: Vec<String>,
    /// What the topology's keys begin with in etcd.
    #[arg(long, global = true, value_name = "PREFIX", default_value = "/ringway/")]
    pub(super) prefix: String,
    /// User of etcd.
    #[arg(long, global = true, value_name = "NAME", requires = "password_file")]
    pub(super) user: Option<String>,
    /// File with the user's password.
    #[arg(long, global = true, value_name = "FILE", requires = "user")]
    pub(super) password_file: Option<PathBuf>,
}

impl EtcdAccess {
    /// Whether etcd is to be asked.
    pub(super) fn is_meant(&self) -> bool {
        !self.endpoints.is_empty()
    }
}

impl Access {
    pub(super) fn api(&self) -> anyhow::Result<Api> {
        for member in &self.members {
            if MemberUrl::parse(member).is_none() {
                bail!(
                    "`--members` (or RINGWAY_CONTROL): `{member}` is not the address of a member: write it as \
                     `https://10.0.0.1:9700`"
                );
            }
        }
        let mut settings: Control = client_settings(&self.members, self.token_file.clone(), self.ca.clone());
        settings.identity = self.certificate.clone().zip(self.key_file.clone());
        Ok(Api::new(&settings)?)
    }
}
