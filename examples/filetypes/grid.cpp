#include <algorithm>
#include <iostream>
#include <memory>
#include <vector>

namespace garden {

template <typename T>
class Grid {
public:
    Grid(std::size_t rows, std::size_t columns) : columns_(columns), cells_(rows * columns) {}

    T &at(std::size_t row, std::size_t column) { return cells_.at(row * columns_ + column); }

    template <typename F>
    void each(F &&visit) {
        std::for_each(cells_.begin(), cells_.end(), std::forward<F>(visit));
    }

private:
    std::size_t columns_;
    std::vector<T> cells_;
};

}  // namespace garden

int main() {
    auto beds = std::make_unique<garden::Grid<int>>(3, 4);
    beds->at(1, 2) = 7;
    int plants = 0;
    beds->each([&plants](const int &n) { plants += n; });
    std::cout << "plants: " << plants << std::endl;
}
