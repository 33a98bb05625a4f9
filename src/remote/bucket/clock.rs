/*! The time as stores write it. */

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::date::Date;

const DAY: u64 = 86_400;

/// Seconds since 1970.
pub fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// `20130524T000000Z`.
pub fn compact(time: SystemTime) -> String {
    let (date, [hour, minute, second]) = parts(time);
    let Date { year, month, day } = date;
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

/// `Fri, 24 May 2013 00:00:00 GMT`.
pub fn http(time: SystemTime) -> String {
    const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (Date { year, month, day }, [hour, minute, second]) = parts(time);
    let weekday = WEEKDAYS[(seconds(time) / DAY % 7) as usize];
    let month = MONTHS[usize::from(month - 1) % 12];
    format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
}

/// Reads `2013-05-24T00:00:00Z`; fractions of seconds are left out.
pub fn parse(text: &str) -> Option<SystemTime> {
    let (date, clock) = text.strip_suffix('Z')?.split_once('T')?;
    let Date { year, month, day } = date.parse().ok()?;
    let mut clock = clock.split('.').next()?.split(':').map(|it| it.parse::<u64>().ok());
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    // March is the first month here, so that a leap day is the last of its year.
    let (year, month) = (u64::from(year), u64::from(month));
    let (year, month) =
        if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5;
    let days = (days + u64::from(day) - 1).checked_sub(719_468)?;
    let seconds = days * DAY + hour.min(24) * 3600 + minute.min(60) * 60 + second.min(60);
    Some(UNIX_EPOCH + Duration::from_secs(seconds))
}

fn parts(time: SystemTime) -> (Date, [u64; 3]) {
    let seconds = seconds(time);
    let clock = seconds % DAY;
    (Date::from_days(seconds / DAY), [clock / 3600, clock / 60 % 60, clock % 60])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_and_read() {
        // Expected values: date -u -d @N +…
        for (seconds, is_compact, is_http, long) in [
            (0, "19700101T000000Z", "Thu, 01 Jan 1970 00:00:00 GMT", "1970-01-01T00:00:00Z"),
            (
                1369353600,
                "20130524T000000Z",
                "Fri, 24 May 2013 00:00:00 GMT",
                "2013-05-24T00:00:00Z",
            ),
            (
                1709210096,
                "20240229T123456Z",
                "Thu, 29 Feb 2024 12:34:56 GMT",
                "2024-02-29T12:34:56.7Z",
            ),
            (
                1709251199,
                "20240229T235959Z",
                "Thu, 29 Feb 2024 23:59:59 GMT",
                "2024-02-29T23:59:59Z",
            ),
        ] {
            let time = UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(compact(time), is_compact);
            assert_eq!(http(time), is_http);
            assert_eq!(parse(long), Some(time));
        }
        for bad in
            ["", "2013-05-24", "2013-05-24T00:00Z", "1969-12-31T00:00:00Z", "2013-13-01T0:0:0Z"]
        {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
