// Detect objects in images with ONNX Runtime; OpenCV reads and scales the images.
#include <onnxruntime_cxx_api.h>

#include <array>
#include <iostream>

#include "detection.hpp"

void run(const Options &options) {
    Ort::Env environment(ORT_LOGGING_LEVEL_ERROR);
    const std::basic_string<ORTCHAR_T> file(options.model.begin(), options.model.end());
    Ort::Session session(environment, file.c_str(), Ort::SessionOptions());
    const Ort::ModelMetadata metadata = session.GetModelMetadata();
    Ort::AllocatorWithDefaultOptions allocator;
    const auto text = [&](const char *key) -> std::string {
        const auto value = metadata.LookupCustomMetadataMapAllocated(key, allocator);
        return value ? value.get() : throw std::runtime_error(options.model + ": no metadata " + key);
    };
    const Model model = describe(text, options);
    const std::array<int64_t, 4> shape = {1, 3, model.size.height, model.size.width};
    const char *inputs[] = {"images"}, *names[] = {"boxes", "scores"};
    const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    for (const std::string &path : options.images) {
        const cv::Mat image = read_image(path);
        const Letterbox mapping = letterbox(image, model.size);
        std::vector<float> values = planes(mapping.canvas);
        const auto input = Ort::Value::CreateTensor<float>(memory, values.data(), values.size(), shape.data(), 4);
        const auto outputs = session.Run(Ort::RunOptions(), inputs, &input, 1, names, 2);
        const int count = int(outputs[0].GetTensorTypeAndShapeInfo().GetShape()[1]);
        const auto detections = select(outputs[0].GetTensorData<float>(), outputs[1].GetTensorData<float>(), count, model);
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
