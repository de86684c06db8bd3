//! The charging log.

use sip_ims::ports::{ChargingLog, ChargingRecord, Done, MAX_CHARGING_RECORD, StoreError};
use sqlx::{AnyConnection, Row, query};

use super::{SqlStore, check_text};

impl ChargingLog for SqlStore {
    fn append(&self, record: ChargingRecord, done: Option<Done<()>>) -> Result<(), StoreError> {
        if record.line.len() > MAX_CHARGING_RECORD {
            return Err(StoreError::TooLarge);
        }
        check_text(&[&record.line])?;
        // Without a completion a failure is still logged by the writer.
        let done = done.unwrap_or_else(|| Box::new(|_| {}));
        let queued = self.writer.try_submit(record.line.len(), done, async move |c: &mut AnyConnection| {
            query("INSERT INTO charging (at, line) VALUES ($1, $2)")
                .bind(record.at)
                .bind(record.line.as_str())
                .execute(c)
                .await?;
            Ok(Ok(()))
        });
        queued.map_err(|(error, _)| error)
    }

    fn read(&self, from: i64, to: i64, after: u64, limit: u32, done: Done<Vec<(u64, ChargingRecord)>>) {
        self.reader.submit(0, done, async move |c: &mut AnyConnection| {
            let rows =
                query("SELECT id, at, line FROM charging WHERE at >= $1 AND at < $2 AND id > $3 ORDER BY id LIMIT $4")
                    .bind(from)
                    .bind(to)
                    .bind(after as i64)
                    .bind(i64::from(limit))
                    .fetch_all(c)
                    .await?;
            let mut records = Vec::with_capacity(rows.len());
            for row in rows {
                let record = ChargingRecord { at: row.try_get(1)?, line: row.try_get(2)? };
                records.push((row.try_get::<i64, _>(0)? as u64, record));
            }
            Ok(Ok(records))
        });
    }
}
