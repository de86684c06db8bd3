//! `isthmus billing`: writes the totals of a day or a month, and prints the file's name.

use clap::Subcommand;
use gw_sms::billing::{Period, is_day, month};

use super::{CtlError, Place};
use crate::billing::Office;
use crate::config::Problem;
use crate::store::sms;

#[derive(Subcommand, Debug)]
pub(super) enum Command {
    /// Of one day, YYYY-MM-DD.
    Day {
        day: String,
        #[command(flatten)]
        place: Place,
    },
    /// Of one month, YYYY-MM.
    Month {
        month: String,
        #[command(flatten)]
        place: Place,
    },
}

pub(super) fn run(command: &Command) -> Result<(), CtlError> {
    let (period, name, days, place) = match command {
        Command::Day { day, place } => (Period::Day, day, is_day(day).then(|| (day.clone(), day.clone())), place),
        Command::Month { month: name, place } => (Period::Month, name, month(name), place),
    };
    let wrong = || CtlError::Usage(Problem::new(period.as_str(), format!("\"{name}\" is not a {}", period.as_str())));
    let (from, to) = days.ok_or_else(wrong)?;
    let config = place.config()?;
    let totals = sms::read_totals(&place.store(&config).engine, &from, &to)?;
    let office = Office::of(&config);
    let now = (crate::sms::clock())();
    let path =
        office.write(period, name, now, &totals).map_err(|source| CtlError::File { file: "billing".into(), source })?;
    println!("{}", path.display());
    Ok(())
}
