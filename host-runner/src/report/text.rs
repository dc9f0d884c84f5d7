//! Tables and numbers for people.

use comfy_table::{Cell, CellAlignment, LineStyle, Table, presets};

/// Bytes in hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A table of a name and a value per row.
#[must_use]
pub fn facts(rows: &[(&str, String)]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    for (name, value) in rows {
        table.add_row([Cell::new(name), Cell::new(value)]);
    }
    format!("{}\n", table.trim_fmt())
}

/// A table with a header; all columns but the first are aligned right.
#[must_use]
pub fn table<const C: usize>(header: [&str; C], rows: &[[String; C]]) -> String {
    wide_table(&header, rows)
}

/// The same of as many columns as the header has.
#[must_use]
pub fn wide_table<R: AsRef<[String]>>(header: &[&str], rows: &[R]) -> String {
    let mut table = Table::new();
    let style = presets::UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none());
    table.load_style(style).set_header(header);
    for row in rows {
        table.add_row(row.as_ref());
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    format!("{}\n", table.trim_fmt())
}

/// A count with thousands separated by spaces.
#[must_use]
pub fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(c);
    }
    out
}

/// Bytes in the unit that suits them.
#[must_use]
pub fn bytes(count: u64) -> String {
    const UNITS: [(&str, f64); 3] = [("MB", 1e6), ("KB", 1e3), ("bytes", 1.0)];
    let count = count as f64;
    let unit = UNITS.iter().find(|(_, size)| count >= *size);
    match unit {
        Some((name, size)) if *size > 1.0 => format!("{:.1} {name}", count / size),
        _ => format!("{count} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_234_567), "1 234 567");
        assert_eq!(bytes(999), "999 bytes");
        assert_eq!(bytes(2_772_220), "2.8 MB");
    }
}
