//! `isthmus user`: users one at a time.

use std::io::Write;

use clap::{Args, Subcommand};
use sip_ims::{DigestSecrets, User};

use super::{CtlError, Place};
use crate::config::Problem;
use crate::provision::{self, UserEntry, wait};
use crate::store;

#[derive(Subcommand, Debug)]
pub(super) enum Command {
    /// Add a user, or change one that is there.
    Add {
        id: String,
        #[arg(long)]
        password: String,
        /// International number, +81…
        #[arg(long)]
        msisdn: Option<String>,
        #[command(flatten)]
        place: Place,
    },
    /// All users: id, URI, number, roles.
    List {
        #[command(flatten)]
        place: Place,
    },
    /// Remove a user.
    Remove {
        id: String,
        #[command(flatten)]
        place: Place,
    },
    /// Change a user's password, read from standard input unless given.
    Passwd(Passwd),
}

#[derive(Args, Debug)]
pub(super) struct Passwd {
    id: String,
    #[arg(long)]
    password: Option<String>,
    #[command(flatten)]
    place: Place,
}

pub(super) fn run(command: &Command) -> Result<(), CtlError> {
    match command {
        Command::Add { id, password, msisdn, place } => add(id, password, msisdn.as_deref(), place),
        Command::List { place } => list(place),
        Command::Remove { id, place } => {
            let users = store::open_users(&place.store(&place.config()?))?;
            if wait(|done| users.remove(id, done))? { Ok(()) } else { Err(CtlError::NoUser(id.clone())) }
        }
        Command::Passwd(passwd) => change_password(passwd),
    }
}

fn add(id: &str, password: &str, msisdn: Option<&str>, place: &Place) -> Result<(), CtlError> {
    let config = place.config()?;
    let entry = UserEntry {
        id: id.to_owned(),
        password: Some(password.to_owned()),
        msisdn: msisdn.map(str::to_owned),
        roles: vec![sip_ims::Role::Customer],
        ..UserEntry::default()
    };
    let wrong = |(key, text): (&str, String)| CtlError::Usage(Problem::new(key, text));
    let mut user = entry.user(&config.domain).map_err(wrong)?;
    let users = store::open_users(&place.store(&config))?;
    // Of a user who is there already, only what was named changes.
    if let Some(old) = find(&*users, id)? {
        user = User {
            secrets: DigestSecrets { aka: old.secrets.aka.clone(), ..user.secrets },
            msisdn: user.msisdn.or(old.msisdn),
            ..old
        };
    }
    wait(|done| users.put(vec![user], done))?;
    Ok(())
}

fn list(place: &Place) -> Result<(), CtlError> {
    let users = store::open_users(&place.store(&place.config()?))?;
    let mut out = std::io::stdout().lock();
    for user in provision::all_users(&*users)? {
        let number = user.msisdn.map(|n| n.to_string()).unwrap_or_default();
        // serde names the roles as the provisioning file does.
        let roles: Vec<String> =
            user.roles.iter().filter_map(|r| serde_json::to_value(r).ok()?.as_str().map(str::to_owned)).collect();
        writeln!(out, "{}\tsip:{}\t{number}\t{}", user.id, user.aor, roles.join(",")).map_err(CtlError::Output)?;
    }
    Ok(())
}

fn change_password(passwd: &Passwd) -> Result<(), CtlError> {
    let config = passwd.place.config()?;
    let password = match &passwd.password {
        Some(password) => password.clone(),
        None => {
            let mut line = String::new();
            let read = std::io::stdin().read_line(&mut line);
            read.map_err(|source| CtlError::File { file: "standard input".into(), source })?;
            line.trim_end_matches(['\r', '\n']).to_owned()
        }
    };
    if password.is_empty() || password.len() > provision::MAX_PASSWORD {
        return Err(CtlError::Usage(Problem::new("password", "must be 1 to 256 bytes")));
    }
    let users = store::open_users(&passwd.place.store(&config))?;
    let Some(mut user) = find(&*users, &passwd.id)? else { return Err(CtlError::NoUser(passwd.id.clone())) };
    let aka = user.secrets.aka.take();
    user.secrets =
        DigestSecrets { aka, ..DigestSecrets::of_password(&passwd.id, user.aor.domain(), password.as_bytes()) };
    wait(|done| users.put(vec![user], done))?;
    Ok(())
}

fn find(users: &dyn sip_ims::ports::UserStore, id: &str) -> Result<Option<User>, CtlError> {
    Ok(provision::all_users(users)?.into_iter().find(|u| &*u.id == id))
}
