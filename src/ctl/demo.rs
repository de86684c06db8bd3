//! `--demo`: two users to try the server with.

use crate::app::Running;
use crate::config::Config;
use crate::provision::{UserEntry, wait};
use crate::{app, secrets, store};
use sip_ims::Role;

use super::CtlError;

/// A user and the password that was made up for them.
pub(super) struct DemoUser {
    id: &'static str,
    password: String,
}

/// Adds alice and bob. Their passwords are kept in the data folder, so that phones keep working after a restart.
pub(super) fn users(config: &Config) -> Result<Vec<DemoUser>, CtlError> {
    let folder = &config.data_dir;
    std::fs::create_dir_all(folder).map_err(|source| CtlError::File { file: folder.clone(), source })?;
    let made: Vec<DemoUser> = ["alice", "bob"]
        .into_iter()
        .map(|id| {
            let path = folder.join(format!("demo-{id}.password"));
            let password = secrets::kept(&path, || Ok(secrets::password()))?;
            Ok(DemoUser { id, password: password.trim().to_owned() })
        })
        .collect::<Result<_, CtlError>>()?;
    let users = store::open_users(&app::store_config(config))?;
    let entries = made.iter().filter_map(|u| {
        let entry = UserEntry {
            id: u.id.into(),
            password: Some(u.password.clone()),
            roles: vec![Role::Customer],
            ..UserEntry::default()
        };
        // Neither the ids nor the passwords can be wrong; the domain was checked.
        entry.user(&config.domain).ok()
    });
    wait(|done| users.put(entries.collect(), done))?;
    Ok(made)
}

/// Tells on stdout how each gets in, once the doors are open.
pub(super) fn print(running: &Running, users: &[DemoUser]) {
    let doors: Vec<String> = running.sip.iter().map(|(t, a)| format!("{a} ({t})")).collect();
    for user in users {
        println!("demo user {}", user.id);
        println!("  SIP URI   sip:{}@{}", user.id, running.domain);
        println!("  user name {}", user.id);
        println!("  password  {}", user.password);
        println!("  proxy     {}", doors.join(", "));
        if let Some(address) = running.http {
            println!("  browser   ws://{address}/sip");
        }
    }
}
