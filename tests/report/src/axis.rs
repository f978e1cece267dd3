//! Round numbers along an axis.

/// From zero to a round number, and the numbers in between that are written down.
pub(crate) struct Axis {
    /// Where the axis ends.
    pub(crate) end: f64,
    step: f64,
}

impl Axis {
    /// One on which `most` finds room.
    pub(crate) fn up_to(most: f64) -> Self {
        let most = if most > 0.0 { most } else { 1.0 };
        let power = 10f64.powf((most / 5.0).log10().floor());
        let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
        let fits = steps.into_iter().find(|step| step * 5.0 >= most);
        let step = fits.unwrap_or(power * 10.0);
        Self {
            end: (most / step).ceil() * step,
            step,
        }
    }

    /// The numbers that are written down, with their texts.
    pub(crate) fn ticks(&self) -> impl Iterator<Item = (f64, String)> {
        let decimals = (-self.step.log10().floor()).max(0.0) as usize;
        let count = (self.end / self.step).round() as usize;
        (0..=count).map(move |tick| {
            let at = tick as f64 * self.step;
            (at, format!("{at:.decimals$}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(most: f64) -> Vec<String> {
        let axis = Axis::up_to(most);
        axis.ticks().map(|(_, text)| text).collect()
    }

    #[test]
    fn an_axis_has_few_round_numbers_and_room_for_all() {
        assert_eq!(texts(8.2), ["0", "2", "4", "6", "8", "10"]);
        assert_eq!(texts(0.3), ["0.0", "0.1", "0.2", "0.3"]);
        assert_eq!(texts(1000.0), ["0", "200", "400", "600", "800", "1000"]);
    }

    #[test]
    fn an_axis_without_values_is_one_all_the_same() {
        assert_eq!(texts(0.0).last().map(String::as_str), Some("1.0"));
    }
}
