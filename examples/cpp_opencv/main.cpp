// Detect objects in images with OpenCV's DNN module.
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <opencv2/dnn.hpp>
#include <string_view>

#include "detection.hpp"

using Field = std::pair<int, std::string_view>;

uint64_t read_varint(std::string_view &bytes) {
    uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
        if (bytes.empty() || shift > 63) throw std::runtime_error("not an ONNX file");
        const unsigned char byte = bytes[0];
        bytes.remove_prefix(1);
        value |= uint64_t(byte & 127) << shift;
        if (byte < 128) return value;
    }
}

// The fields of a Protocol Buffers message that have a length
std::vector<Field> fields(std::string_view bytes) {
    std::vector<Field> found;
    while (!bytes.empty()) {
        const uint64_t key = read_varint(bytes);
        if (key % 8 == 0) {
            read_varint(bytes);
        } else {
            const uint64_t length = key % 8 == 2 ? read_varint(bytes) : (key % 8 == 1 ? 8 : 4);
            if (key % 8 == 2) found.emplace_back(int(key / 8), bytes.substr(0, length));
            bytes.remove_prefix(std::min<uint64_t>(length, bytes.size()));
        }
    }
    return found;
}

// OpenCV does not give the metadata of an ONNX file: field 14, of pairs of texts
std::map<std::string, std::string> read_metadata(const std::string &path) {
    std::ifstream file(path, std::ios::binary);
    const std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    std::map<std::string, std::string> metadata;
    for (const auto &[number, entry] : fields(bytes)) {
        if (number != 14) continue;
        const std::vector<Field> pair = fields(entry);
        if (pair.size() == 2) metadata[std::string(pair[0].second)] = pair[1].second;
    }
    return metadata;
}

void run(const Options &options) {
    const auto metadata = read_metadata(options.model);
    const auto text = [&](const char *key) {
        if (!metadata.count(key)) throw std::runtime_error(options.model + ": no metadata " + key);
        return metadata.at(key);
    };
    const Model model = describe(text, options);
    cv::dnn::Net net = cv::dnn::readNetFromONNX(options.model);
    for (const std::string &path : options.images) {
        const cv::Mat image = read_image(path);
        const Letterbox mapping = letterbox(image, model.size);
        std::vector<float> input = planes(mapping.canvas);
        net.setInput(cv::Mat({1, 3, model.size.height, model.size.width}, CV_32F, input.data()), "images");
        std::vector<cv::Mat> outputs;
        net.forward(outputs, std::vector<std::string>{"boxes", "scores"});
        const auto detections = select(outputs[0].ptr<float>(), outputs[1].ptr<float>(), outputs[0].size[1], model);
        report(path, image, to_image(detections, mapping, image.size()), model, options.out);
    }
}

int main(int count, char **words) {
    try {
        run(parse(count, words));
    } catch (const std::exception &error) {
        std::cerr << error.what() << "\n";
        return 1;
    }
}
