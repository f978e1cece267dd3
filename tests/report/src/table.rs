//! Tables of text, for what people read.

/// Lays `rows` out under a `header`. The columns in `numbers` are aligned to the right.
pub fn layout(header: &[&str], rows: &[Vec<String>], numbers: &[usize]) -> String {
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .chain([header[column].chars().count()])
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<_> = (0..header.len()).map(width).collect();
    let line = |cells: &[String]| {
        let padded: Vec<_> = cells
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(column, (cell, width))| {
                if numbers.contains(&column) {
                    format!("{cell:>width$}")
                } else {
                    format!("{cell:<width$}")
                }
            })
            .collect();
        padded.join("  ").trim_end().to_owned()
    };
    let header: Vec<_> = header.iter().map(|title| (*title).to_owned()).collect();
    let rule: Vec<_> = widths.iter().map(|width| "-".repeat(*width)).collect();
    let lines = [line(&header), line(&rule)];
    let rows = rows.iter().map(|row| line(row));
    lines.into_iter().chain(rows).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["≠", "1.5"], ["long", "10"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(
            layout(&["A", "B"], &rows, &[1]),
            "A       B\n----  ---\n≠     1.5\nlong   10"
        );
    }
}
