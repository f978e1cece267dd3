//! Tables that fit a terminal.

/// Between two columns.
const GAP: &str = "  ";
/// No column is cut to less than this.
const NARROWEST: usize = 8;

/// Rows under a heading, with columns as wide as what is in them. Where that is more than `width`,
/// the widest columns are cut.
pub fn table<const N: usize>(
    heading: [&str; N],
    rows: &[[String; N]],
    width: Option<usize>,
) -> String {
    let mut widths = heading.map(str::len);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    if let Some(width) = width {
        fit(&mut widths, width.saturating_sub(GAP.len() * (N - 1)));
    }
    let mut text = line(&heading.map(str::to_owned), &widths);
    for row in rows {
        text.push_str(&line(row, &widths));
    }
    text
}

/// Takes from the widest columns until all of them fit, or nothing can be taken any more.
fn fit(widths: &mut [usize], room: usize) {
    while widths.iter().sum::<usize>() > room {
        let Some(widest) = widths.iter_mut().max_by_key(|width| **width) else {
            return;
        };
        if *widest <= NARROWEST {
            return;
        }
        *widest -= 1;
    }
}

fn line<const N: usize>(row: &[String; N], widths: &[usize; N]) -> String {
    let cells = row.iter().zip(widths).map(|(cell, width)| {
        let cell = cut(cell, *width);
        format!("{cell:width$}")
    });
    let line = cells.collect::<Vec<_>>().join(GAP);
    format!("{}\n", line.trim_end())
}

/// The end of a name tells two apart more often than its beginning.
fn cut(cell: &str, width: usize) -> String {
    let length = cell.chars().count();
    if length <= width {
        return cell.to_owned();
    }
    let (kept, end) = (width - 1, (width - 1) / 2);
    let start = cell.chars().take(kept - end);
    start
        .chain(['…'])
        .chain(cell.chars().skip(length - end))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<[String; 2]> {
        vec![
            ["shop/web-7f8d9c5b4-x2x7z".to_owned(), "valid".to_owned()],
            ["-".to_owned(), "none".to_owned()],
        ]
    }

    #[test]
    fn columns_are_as_wide_as_what_is_in_them() {
        let expected = "\
POD                       STATE
shop/web-7f8d9c5b4-x2x7z  valid
-                         none
";
        assert_eq!(table(["POD", "STATE"], &rows(), None), expected);
        assert_eq!(table(["POD", "STATE"], &rows(), Some(80)), expected);
    }

    #[test]
    fn the_widest_column_is_cut_in_the_middle_where_there_is_no_room() {
        let shown = table(["POD", "STATE"], &rows(), Some(22));
        assert_eq!(shown.lines().nth(1).unwrap().chars().count(), 22, "{shown}");
        assert!(shown.contains("\nshop/we…"), "{shown}");
        assert!(shown.contains("x2x7z  valid\n"), "{shown}");
    }
}
