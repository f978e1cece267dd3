//! Tables that fit a terminal.

/// Between two columns.
const GAP: &str = "  ";
/// No column is cut to less than this, unless it says so itself.
const NARROWEST: usize = 8;

/// A column of a table.
#[derive(Clone, Copy)]
pub struct Column {
    heading: &'static str,
    /// How many characters are left of it at least where it is cut; `None` if it never is.
    least: Option<usize>,
    /// Of the columns that may be left out, the one with the highest number goes first.
    goes: Option<u8>,
}

impl Column {
    /// One that is always there, at full width.
    pub const fn new(heading: &'static str) -> Self {
        Self {
            heading,
            least: None,
            goes: None,
        }
    }

    /// Cut to no fewer than so many characters where there is no room.
    pub const fn cut_to(self, least: usize) -> Self {
        Self {
            least: Some(least),
            ..self
        }
    }

    /// Left out where even the least of all columns has no room, and before those with a lower
    /// number.
    pub const fn goes(self, goes: u8) -> Self {
        Self {
            goes: Some(goes),
            ..self
        }
    }
}

/// Rows under a heading, with columns as wide as what is in them. Where that is more than `width`,
/// the widest columns are cut.
pub fn table<const N: usize>(
    heading: [&'static str; N],
    rows: &[[String; N]],
    width: Option<usize>,
) -> String {
    let columns = heading.map(|heading| Column::new(heading).cut_to(NARROWEST));
    let rows: Vec<_> = rows.iter().map(|row| row.to_vec()).collect();
    table_of(&columns, &rows, width)
}

/// The same, with columns of which each says how far it may be cut. Where that does not do, columns
/// are left out.
pub fn table_of(columns: &[Column], rows: &[Vec<String>], width: Option<usize>) -> String {
    let widest = |at: usize| {
        let cells = rows.iter().filter_map(|row| row.get(at));
        let cells = cells.map(|cell| cell.chars().count());
        cells.fold(columns[at].heading.len(), usize::max)
    };
    let mut widths: Vec<_> = (0..columns.len()).map(widest).collect();
    let mut shown: Vec<_> = (0..columns.len()).collect();
    if let Some(width) = width {
        leave_out(columns, &widths, &mut shown, width);
        cut_widest(columns, &mut widths, &shown, width);
    }
    let heading: Vec<_> = columns.iter().map(|it| it.heading.to_owned()).collect();
    let lines = [&heading].into_iter().chain(rows);
    lines.map(|row| line(row, &shown, &widths)).collect()
}

/// How wide a line is.
fn total(shown: &[usize], width: impl Fn(usize) -> usize) -> usize {
    let gaps = GAP.len() * shown.len().saturating_sub(1);
    gaps + shown.iter().map(|at| width(*at)).sum::<usize>()
}

/// Leaves columns out until the least of the others fits.
fn leave_out(columns: &[Column], widths: &[usize], shown: &mut Vec<usize>, width: usize) {
    let least = |at: usize| columns[at].least.unwrap_or(usize::MAX).min(widths[at]);
    while total(shown, least) > width {
        let goes = shown
            .iter()
            .filter_map(|at| Some((columns[*at].goes?, *at)));
        let Some((_, first)) = goes.max() else { return };
        shown.retain(|at| *at != first);
    }
}

/// Takes from the widest columns that may be cut until all fit.
fn cut_widest(columns: &[Column], widths: &mut [usize], shown: &[usize], width: usize) {
    while total(shown, |at| widths[at]) > width {
        let may_be_cut = |at: &&usize| columns[**at].least.is_some_and(|it| it < widths[**at]);
        let Some(widest) = shown
            .iter()
            .filter(may_be_cut)
            .max_by_key(|at| widths[**at])
        else {
            return;
        };
        widths[*widest] -= 1;
    }
}

fn line(row: &[String], shown: &[usize], widths: &[usize]) -> String {
    let cells = shown
        .iter()
        .filter_map(|at| Some((row.get(*at)?, widths[*at])));
    let cells = cells.map(|(cell, width)| format!("{:width$}", cut(cell, width)));
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

    const COLUMNS: [Column; 4] = [
        Column::new("POD").cut_to(12),
        Column::new("ROLE").cut_to(8).goes(1),
        Column::new("STATE"),
        Column::new("BY").goes(2),
    ];

    fn shown(width: Option<usize>) -> String {
        let row = |cells: [&str; 4]| cells.map(str::to_owned).to_vec();
        let rows = [
            row(["shop/web-7f8d9c5b4-x2x7z", "1234/reader", "valid", "kernel"]),
            row(["-", "-", "none", "-"]),
        ];
        table_of(&COLUMNS, &rows, width)
    }

    #[test]
    fn columns_are_as_wide_as_what_is_in_them() {
        let expected = "\
POD                       ROLE         STATE  BY
shop/web-7f8d9c5b4-x2x7z  1234/reader  valid  kernel
-                         -            none   -
";
        assert_eq!(shown(None), expected);
        assert_eq!(shown(Some(80)), expected);
    }

    #[test]
    fn the_widest_column_is_cut_in_the_middle_where_there_is_no_room() {
        let expected = "\
POD              ROLE         STATE  BY
shop/we…4-x2x7z  1234/reader  valid  kernel
-                -            none   -
";
        assert_eq!(shown(Some(43)), expected);
    }

    #[test]
    fn columns_are_left_out_in_their_order_where_cutting_does_not_do() {
        let headings = |width| {
            let shown = shown(Some(width));
            let widest = shown.lines().map(|line| line.chars().count()).max();
            assert!(widest <= Some(width), "{width}: {shown}");
            let heading = shown.lines().next().unwrap_or_default();
            heading
                .split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        // What is left of all of them at least, with the gaps.
        assert_eq!(headings(12 + 8 + 5 + 6 + 6), ["POD", "ROLE", "STATE", "BY"]);
        assert_eq!(headings(12 + 8 + 5 + 6 + 5), ["POD", "ROLE", "STATE"]);
        assert_eq!(headings(12 + 8 + 5 + 3), ["POD", "STATE"]);
        assert_eq!(headings(12 + 5 + 2), ["POD", "STATE"]);
        // Less than that cannot be: a terminal breaks the lines.
        assert!(table_of(&COLUMNS, &[], Some(1)).starts_with("POD"));
    }
}
